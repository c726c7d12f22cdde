"""Extension and policy identifiers that the CA signer knows. What is not here, it does not sign."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SUBJECT_KEY_IDENTIFIER: Final = "2.5.29.14"
KEY_USAGE: Final = "2.5.29.15"
SUBJECT_ALT_NAME: Final = "2.5.29.17"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
NAME_CONSTRAINTS: Final = "2.5.29.30"
CRL_DISTRIBUTION_POINTS: Final = "2.5.29.31"
CERTIFICATE_POLICIES: Final = "2.5.29.32"
AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
EXTENDED_KEY_USAGE: Final = "2.5.29.37"
AUTHORITY_INFORMATION_ACCESS: Final = "1.3.6.1.5.5.7.1.1"
CT_POISON: Final = "1.3.6.1.4.1.11129.2.4.3"
SCT_LIST: Final = "1.3.6.1.4.1.11129.2.4.2"
OCSP_NOCHECK: Final = "1.3.6.1.5.5.7.48.1.5"

AD_OCSP: Final = "1.3.6.1.5.5.7.48.1"
AD_CA_ISSUERS: Final = "1.3.6.1.5.5.7.48.2"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
EMAIL_PROTECTION: Final = "1.3.6.1.5.5.7.3.4"
OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"
PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "serverAuth": SERVER_AUTH,
        "clientAuth": CLIENT_AUTH,
        "emailProtection": EMAIL_PROTECTION,
        "OCSPSigning": OCSP_SIGNING,
    }
)
"""Extended key usage by the names that profiles use."""

ANY_POLICY: Final = "2.5.29.32.0"
POLICY_DV: Final = "2.23.140.1.2.1"
POLICY_OV: Final = "2.23.140.1.2.2"
