"""Finds the certificate that somebody names: by serial, by issuer and serial, or by showing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asn1crypto import pem
from cryptography import x509

from quash.errors import Kind, QuashError
from quash.pki.certificate import CertificateFields, read_certificate
from quash.pki.serials import format_serial
from quash.store import certificates, issuers
from quash.store.certificates import Certificate
from quash.store.database import Connection
from quash.store.issuers import Issuer


@dataclass(frozen=True, slots=True)
class Target:
    """How a request names a certificate: exactly one of `serial` and `certificate` (PEM), and perhaps its issuer."""

    issuer: str | None = None
    serial: bytes | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A certificate with its issuer."""

    issuer: Issuer
    certificate: Certificate


async def find_one(conn: Connection, target: Target) -> Found:
    """The one certificate meant. Raises `certificate.unknown` and what `find_all` and `only` raise."""
    found = only(await find_all(conn, target))
    if found is None:
        of = f" of {target.issuer}" if target.issuer else ""
        raise QuashError("certificate.unknown", f"no certificate{of} has this serial: check it", Kind.NOT_FOUND)
    return found


def only(found: Sequence[Found]) -> Found | None:
    """Raises `certificate.ambiguous` when several issuers gave out the serial: it lists them all."""
    if len(found) > 1:
        listed = ", ".join(f"{each.issuer.name} {format_serial(each.certificate.serial)}" for each in found)
        raise QuashError("certificate.ambiguous", f"several issuers have this serial: {listed}; name one with --issuer")
    return found[0] if found else None


async def find_all(conn: Connection, target: Target) -> list[Found]:
    """Every certificate that may be meant, none when we never issued it.

    Raises `issuer.unknown`, `certificate.malformed`, `certificate.foreign` (shown is another one than we issued).
    """
    issuer = await issuer_by_name(conn, target.issuer) if target.issuer is not None else None
    if target.certificate is not None:
        der, shown = read_pem(target.certificate)
        found = [each for each in await _by_serial(conn, shown.serial) if each.issuer.subject == shown.issuer]
        if any(each.certificate.der not in (None, der) for each in found):
            raise QuashError("certificate.foreign", "this is not the certificate that we issued with this serial")
    else:
        found = await _by_serial(conn, target.serial or b"")
    return [each for each in found if issuer is None or each.issuer.id == issuer.id]


def is_ca(found: Found) -> bool:
    """Whether it is a CA's: a root issues nothing else but OCSP signers (G4), others say so themselves."""
    certificate = found.certificate
    if found.issuer.kind == "root" or certificate.der is None:
        return found.issuer.kind == "root" and certificate.profile != "ocsp-signer"
    try:
        shown = x509.load_der_x509_certificate(certificate.der)
        return shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False


def check_single(found: Found) -> None:
    """Raises `revocation.two_officers` for a CA's certificate: nobody revokes one alone, but for a proof of theft."""
    if is_ca(found):
        raise QuashError(
            "revocation.two_officers",
            "two officers revoke a CA's certificate: put its serial into a file, and begin with quash revoke --file",
            Kind.REFUSED,
        )


async def issuer_by_name(conn: Connection, name: str) -> Issuer:
    """Raises `issuer.unknown`, which lists the issuers there are."""
    issuer = await issuers.find_by_name(conn, name)
    if issuer is None:
        known = ", ".join(each.name for each in await issuers.all_issuers(conn))
        raise QuashError("issuer.unknown", f"no issuer has the name {name!r}: use one of {known}", Kind.NOT_FOUND)
    return issuer


def read_pem(text: str) -> tuple[bytes, CertificateFields]:
    """The first certificate of a PEM text, as DER and as what it says. Raises `certificate.malformed`."""
    try:
        _, _, der = pem.unarmor(text.encode("ascii"))
        return der, read_certificate(der)
    except (ValueError, QuashError) as error:
        raise QuashError("certificate.malformed", "this is not a certificate in PEM") from error


async def _by_serial(conn: Connection, serial: bytes) -> list[Found]:
    found = []
    for certificate in await certificates.find_by_serial(conn, serial):
        issuer = await issuers.get(conn, certificate.issuer_id)
        assert issuer is not None  # noqa: S101 - the table's foreign key
        found.append(Found(issuer, certificate))
    return found
