"""The configuration: one TOML per deployment, read into frozen models that reject unknown keys.

What the rules forbid cannot be configured (G25): each limit stands beside its field with the id of its row. Secrets are
named by file path, never by value.
"""

from quash.runtime.config.crl import Crl, Purge
from quash.runtime.config.hierarchy import Issuer, OcspSigner, Permitted, Profile, check_ca
from quash.runtime.config.issuing import Checks, Ct, ExternalLinter, Lint, LintExemption, Names, PwnedKeys
from quash.runtime.config.loader import check_name, load
from quash.runtime.config.model import Listener
from quash.runtime.config.ocsp import Live, Presign, Responder
from quash.runtime.config.operating import Audit, TestSites
from quash.runtime.config.revoking import Intake, Notices
from quash.runtime.config.storage import S3, Database, Keys
from quash.runtime.config.whole import Config

__all__ = [
    "S3",
    "Audit",
    "Checks",
    "Config",
    "Crl",
    "Ct",
    "Database",
    "ExternalLinter",
    "Intake",
    "Issuer",
    "Keys",
    "Lint",
    "LintExemption",
    "Listener",
    "Live",
    "Names",
    "Notices",
    "OcspSigner",
    "Permitted",
    "Presign",
    "Profile",
    "Purge",
    "PwnedKeys",
    "Responder",
    "TestSites",
    "check_ca",
    "check_name",
    "load",
]
