"""The golden certificates of the operators' own PKI, read by strangers: clients, and nothing else (F6, G20).

That Quash makes their very octets, `test_certificates.py` tests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError
from pkilint import loader
from pkilint.pkix import certificate, extension, name

from issuer.checks import adapters
from issuer.checks.findings import at_or_above
from quash.pki.rules import DAY
from quash.runtime.config import ExternalLinter
from tests.golden.test_certificates import golden, loaded, moment
from tests.support import gnutls
from tests.support.gnutls import Status
from tests.support.shipped import ZLINT, openssl_says

CA, OPERATOR = "operators-ca", "operators-officer2"
SERVER, CLIENT, CODE, MAIL = (f"1.3.6.1.5.5.7.3.{each}" for each in (1, 2, 3, 4))
EARLY, LATE = moment(OPERATOR) - 2000, loaded(OPERATOR).not_valid_after_utc.timestamp() + 1


def test_openssl_takes_an_operator_for_a_client(tmp_path: Path) -> None:
    """Strict; below their own CA alone, and in its time."""
    ca, at = loaded(CA), moment(OPERATOR)

    def said(root: x509.Certificate, purpose: str, at: float) -> str:
        return openssl_says(loaded(OPERATOR), [root], purpose, tmp_path, at)

    assert said(ca, "sslclient", at) == "leaf.pem: OK"
    for purpose in ("sslserver", "smimesign", "timestampsign"):
        assert "unsuitable certificate purpose" in said(ca, purpose, at)
    assert "unable to get local issuer" in said(loaded("demo-root"), "sslclient", at)
    assert "not yet valid" in said(ca, "sslclient", EARLY)
    assert "has expired" in said(ca, "sslclient", LATE)


def test_gnutls_takes_an_operator_for_a_client() -> None:
    """Likewise."""
    ca, at = loaded(CA), moment(OPERATOR)

    def said(root: x509.Certificate, purpose: str, at: float) -> Status:
        return gnutls.verify([loaded(OPERATOR)], root, at, purpose=purpose)

    assert said(ca, CLIENT, at) == Status(0)
    for purpose in (SERVER, CODE, MAIL):
        assert Status.PURPOSE_MISMATCH in said(ca, purpose, at)
    assert Status.SIGNER_NOT_FOUND in said(loaded("demo-root"), CLIENT, at)
    assert Status.NOT_ACTIVATED in said(ca, CLIENT, EARLY)
    assert Status.EXPIRED in said(ca, CLIENT, LATE)


def pyca_refuses(leaf: x509.Certificate, root: x509.Certificate, at: float) -> str | None:
    """What pyca says against a client right below a root: all that it asks of one but a SAN, which no operator has."""
    ends = ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    builder = PolicyBuilder().store(Store([root])).time(datetime.fromtimestamp(at, UTC))
    builder = builder.extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ends)
    try:
        builder.build_client_verifier().verify(leaf, [])
    except VerificationError as error:
        return str(error)
    return None


def test_pyca_takes_an_operator_for_a_client() -> None:
    """Likewise; a server's certificate is no client's."""
    operator, ca, at = loaded(OPERATOR), loaded(CA), moment(OPERATOR)
    assert pyca_refuses(operator, ca, at) is None
    assert "candidates exhausted" in str(pyca_refuses(operator, loaded("demo-root"), at))
    assert "not valid at validation time" in str(pyca_refuses(operator, ca, EARLY))
    assert "not valid at validation time" in str(pyca_refuses(operator, ca, LATE))
    assert "required EKU" in str(pyca_refuses(loaded("demo-tls-dv-p256-certificate"), loaded("demo-tls-dv"), at + DAY))


# zlint's findings by the BRs, which are about public trust: this PKI is for the private APIs alone (F6, G20).
OF_PUBLIC_ROOTS = {
    "e_ca_country_name_missing": "by the BRs a CA's name has a country; this one names no legal body",
    "w_root_ca_basic_constraints_path_len_constraint_field_present": "no CA stands below this one, and none ever shall",
}


async def test_zlint_finds_nothing_but_what_is_asked_of_public_roots() -> None:
    """D47: not even a notice."""
    zlint = ExternalLinter(name="zlint", command=(str(ZLINT), "-format", "der", "-"), output="zlint")
    assert at_or_above(await adapters.findings(zlint, golden(OPERATOR)), "notice") == []
    found = at_or_above(await adapters.findings(zlint, golden(CA)), "notice")
    assert {each.code for each in found} == set(OF_PUBLIC_ROOTS)


def test_pkilint_finds_nothing_by_rfc_5280() -> None:
    """D47: the one of its rule sets that applies; the others are about servers, mail and qualified trust."""
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    for each in (CA, OPERATOR):
        results = validator.validate(loader.load_certificate(golden(each), each).root)
        codes = {said.finding.code for result in results for said in result.finding_descriptions}
        assert codes == {"pkix.subject_key_identifier_rfc7093_method_1_identified"}, each  # tells the method: no SHA-1
