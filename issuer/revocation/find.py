"""Finds the certificate that somebody names: by serial, by issuer and serial, or by showing it."""

from __future__ import annotations

from dataclasses import dataclass

from asn1crypto import pem, x509

from quash.errors import Kind, QuashError
from quash.pki.serials import format_serial
from quash.store import certificates, issuers
from quash.store.certificates import Certificate
from quash.store.database import Connection
from quash.store.issuers import Issuer


@dataclass(frozen=True, slots=True)
class Named:
    """What a certificate itself says it is: DER of its issuer's Name, octets of its serial, and all its DER."""

    issuer_subject: bytes
    serial: bytes
    der: bytes


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
    """The one certificate meant.

    Raises `issuer.unknown`, `certificate.unknown`, `certificate.malformed`, `certificate.foreign`, and
    `certificate.ambiguous` when two issuers gave out the serial: then it names both.
    """
    found = await find_all(conn, target)
    if not found:
        of = f" of {target.issuer}" if target.issuer else ""
        raise QuashError("certificate.unknown", f"no certificate{of} has this serial: check it", Kind.NOT_FOUND)
    if len(found) > 1:
        serial = format_serial(found[0].certificate.serial)
        listed = ", ".join(f"{each.issuer.name} {serial}" for each in found)
        raise QuashError("certificate.ambiguous", f"several issuers have this serial: {listed}; name one with --issuer")
    return found[0]


async def find_all(conn: Connection, target: Target) -> list[Found]:
    """Every certificate that may be meant, none when we never issued it. Raises as `find_one` does."""
    only = await issuer_by_name(conn, target.issuer) if target.issuer is not None else None
    if target.certificate is not None:
        shown = read_certificate(target.certificate)
        found = [each for each in await _by_serial(conn, shown.serial) if each.issuer.subject == shown.issuer_subject]
        if any(each.certificate.der not in (None, shown.der) for each in found):
            raise QuashError("certificate.foreign", "this is not the certificate that we issued with this serial")
    else:
        found = await _by_serial(conn, target.serial or b"")
    return [each for each in found if only is None or each.issuer.id == only.id]


async def issuer_by_name(conn: Connection, name: str) -> Issuer:
    """Raises `issuer.unknown`, which lists the issuers there are."""
    issuer = await issuers.find_by_name(conn, name)
    if issuer is None:
        known = ", ".join(each.name for each in await issuers.all_issuers(conn))
        raise QuashError("issuer.unknown", f"no issuer has the name {name!r}: use one of {known}", Kind.NOT_FOUND)
    return issuer


def read_certificate(text: str) -> Named:
    """The first certificate of a PEM text. Raises `certificate.malformed`."""
    try:
        _, _, der = pem.unarmor(text.encode("ascii"))
        tbs = x509.Certificate.load(der, strict=True)["tbs_certificate"]
        return Named(tbs["issuer"].dump(), tbs["serial_number"].contents, der)
    except (ValueError, TypeError) as error:
        raise QuashError("certificate.malformed", "this is not a certificate in PEM") from error


async def _by_serial(conn: Connection, serial: bytes) -> list[Found]:
    found = []
    for certificate in await certificates.find_by_serial(conn, serial):
        issuer = await issuers.get(conn, certificate.issuer_id)
        assert issuer is not None  # noqa: S101 - the table's foreign key
        found.append(Found(issuer, certificate))
    return found
