"""A root's CRL that lists a CA, in front of programs that decide by it: openssl, certtool, pyca, pkilint, Java."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from issuer.signer.offline import renew_crl
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from tests.support import strangers
from tests.support.crl_bench import openssl
from tests.support.initialising import Made
from tests.unit.crlgen.test_more_strangers import certtool, judge
from tests.unit.signer.test_elsewhere import revoke

__all__ = ["judge"]  # a fixture
pytestmark = pytest.mark.usefixtures("no_lint")


@pytest.fixture
def clock() -> FakeClock:
    """A minute ago: not all versions of certtool can be told another time than that of the machine."""
    return FakeClock(time.time() - 60)


@pytest.fixture
async def crl(deployment: Made, tmp_path: Path) -> Path:
    """The root's CRL in PEM; it lists `tls-dv` with a reason, and not `tls-new`."""
    dump = deployment.deployment.config.model_dump()
    first = next(each for each in dump["issuers"] if each["name"] == "tls-dv")
    more = {**first, "name": "tls-new", "subject": {**first["subject"], "CN": "Quash New CA"}, "shards": 0}
    await deployment.make(Config.model_validate({**dump, "issuers": [*dump["issuers"], more]}))
    await revoke(deployment, name="tls-dv")
    await renew_crl(deployment.deployment, "root")
    path = tmp_path / "root.crl.pem"
    assert (
        openssl("crl", "-inform", "DER", "-in", str(deployment.state.crl / "root.crl"), "-out", str(path)).returncode
        == 0
    )
    return path


async def test_only_the_revoked_ca_is_refused(deployment: Made, crl: Path, tmp_path: Path) -> None:
    """Signature, entry and reason (B10), as three libraries see them; pkilint takes it for a CRL of CAs (B2)."""
    certs, root = deployment.state.certs, deployment.state.certs / "root.pem"
    der = (deployment.state.crl / "root.crl").read_bytes()
    at = str(int(deployment.clock.now()) + 30)
    verify = ("verify", "-x509_strict", "-attime", at, "-CAfile", str(root), "-crl_check", "-CRLfile", str(crl))
    for name, revoked in (("tls-new", False), ("tls-dv", True)):
        said = openssl(*verify, str(certs / f"{name}.pem"))
        assert (said.returncode != 0) == revoked
        assert (b"certificate revoked" in said.stderr + said.stdout) == revoked
        content, words = certtool(
            *("--verify", "--load-ca-certificate", str(root), "--load-crl", str(crl)),
            *("--infile", str(certs / f"{name}.pem")),
        )
        assert content != revoked, words
        assert ("revoked" in words) == revoked, words
    read = x509.load_der_x509_crl(der)
    assert read.is_signature_valid(deployment.certificate("root").public_key())  # type: ignore[arg-type]
    (entry,) = read
    assert entry.serial_number == deployment.certificate("tls-dv").serial_number
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.cessation_of_operation
    assert {each.oid.dotted_string for each in read.extensions} == {"2.5.29.35", "2.5.29.20"}, "no IDP (B14)"
    assert strangers.lint_crl(der, tmp_path, of_cas=True) == ""


@pytest.mark.long
async def test_java_refuses_only_the_revoked_ca(deployment: Made, crl: Path, judge: Path) -> None:
    """Java's PKIX revocation checker, with the root as its anchor."""
    certs, at = deployment.state.certs, str(int(deployment.clock.now()) + 30)
    for name, expected in (("tls-new", "GOOD"), ("tls-dv", "REVOKED")):
        files = [certs / "root.pem", crl, certs / f"{name}.pem"]
        said = run("java", "-cp", judge, "Judge", at, *files)
        assert said.startswith(expected), said


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
