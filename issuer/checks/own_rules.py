"""Our own rules for S/MIME certificates, where pkilint is silent on a promise that we made (G8). Looks at DER alone.

Findings have the form of every linter's; all of them are errors, so each refuses at any level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from issuer.checks.findings import Finding

VERSION: Final = version("quash")
_WEAK: Final = (hashes.SHA1, hashes.MD5, hashes.SHA224)


def findings(der: bytes) -> list[Finding]:
    """What an S/MIME certificate says that pkilint allows and we do not."""
    certificate = x509.load_der_x509_certificate(der)
    return [Finding("error", f"quash.smime.{code}", said) for code, rule in RULES for said in rule(certificate)]


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _unit(certificate: x509.Certificate) -> Iterator[str]:
    """G26: SBR still allows an OU in organization and sponsor certificates."""
    for each in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME):
        yield f"organizationalUnitName {each.value!r} (G26)"


def _other_name(certificate: x509.Certificate) -> Iterator[str]:
    """G29: SBR allows SmtpUTF8Mailbox, and multipurpose also UPNs and directory names."""
    for each in _names(certificate):
        if not isinstance(each, x509.RFC822Name):
            yield f"{type(each).__name__} in the subjectAltName: mailboxes are rfc822Names (G29)"


def _idn(certificate: x509.Certificate) -> Iterator[str]:
    """G29: SBR allows P-labels in a mailbox's host."""
    for each in _names(certificate):
        if isinstance(each, x509.RFC822Name):
            labels = each.value.rpartition("@")[2].split(".")
            if not each.value.isascii() or any(label.lower().startswith("xn--") for label in labels):
                yield f"{each.value!r} is not ASCII as people write it (G29)"


def _digest(certificate: x509.Certificate) -> Iterator[str]:
    """G32: the document's own signature algorithm, of which the twin has the issuer's."""
    if isinstance(certificate.signature_hash_algorithm, _WEAK):
        yield f"signed with {certificate.signature_hash_algorithm.name} (G32)"


def _pseudonym(certificate: x509.Certificate) -> Iterator[str]:
    """G46: SBR allows a pseudonym in place of a person's name; who stands behind it nobody could tell."""
    for each in certificate.subject.get_attributes_for_oid(NameOID.PSEUDONYM):
        yield f"pseudonym {each.value!r} (G46)"


def _legacy(certificate: x509.Certificate) -> Iterator[str]:
    """D49: pkilint judges a policy's date; of ours none is of the legacy generation, nor of a level that we lack."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return
    for each in found:
        dotted = each.policy_identifier.dotted_string
        if dotted.startswith("2.23.140.1.5.") and (dotted.endswith(".1") or dotted.split(".")[5] == "4"):
            yield f"policy {dotted} (D49, G46)"


RULES: Final[tuple[tuple[str, Callable[[x509.Certificate], Iterator[str]]], ...]] = (
    ("organizational_unit", _unit),
    ("general_name", _other_name),
    ("internationalized_host", _idn),
    ("weak_digest", _digest),
    ("pseudonym", _pseudonym),
    ("policy", _legacy),
)
