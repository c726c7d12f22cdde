"""What an import of an OpenSSL CA would write: its index, issued certificates and last CRL, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quash.errors import QuashError
from quash.pki import der
from quash.pki.openssl_index import Index, IndexEntry, Remark, published_reason, read_index
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial
from quash.store.imports import ImportRow

_MAX_CLOCK_STEP = 300

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, what is done of it and how much it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a CA, its key apart. `certs`: a folder of issued certificates; `crl`: PEM or DER.

    `private`: it is of a PKI of somebody's own, outside the public rule sets.
    """

    name: str
    index: bytes
    ca: x509.Certificate
    certs: Path | None
    crl: bytes | None
    private: bool = False

    @property
    def kind(self) -> str:
        """Of the issuer that it becomes."""
        return "private" if self.private else "imported"


@dataclass(frozen=True, slots=True)
class OldCrl:
    """Where our CRLs go on from: number (0: it had none) and times, in Unix seconds."""

    number: int
    this_update: int
    next_update: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write. `rows` carry no bucket yet; `skipped` lines left no row, `bad` ones that were revoked did."""

    rows: list[ImportRow]
    bad: list[Remark]
    skipped: int
    warnings: list[str]
    crl: OldCrl | None


def make_plan(source: Source, *, skip_bad: bool, now: int, progress: Progress) -> Plan:
    """Reads and checks everything; raises `import.bad_lines` with every unreadable line unless `skip_bad`."""
    index = read_index(source.index)
    if index.bad and not skip_bad:
        lines = "\n".join(f"  line {bad.line}: {bad.text}" for bad in index.bad)
        raise QuashError("import.bad_lines", f"nothing was imported; mend these lines or give --skip-bad:\n{lines}")
    warnings = [f"line {warning.line}: {warning.text}" for warning in index.warnings]
    crl = _old_crl(source, now) if source.crl is not None else None
    known = dict(_certificates(source, warnings, progress)) if source.certs is not None else {}
    rows = {entry.serial: _row(entry, known.get(entry.serial), source.ca, now, warnings) for entry in index.entries}
    if crl is not None:
        _add_crl_entries(rows, crl, source.ca, now, warnings)
    strangers = sum(serial not in rows for serial in known)
    if strangers:
        warnings.append(f"{strangers} certificates in {source.certs} are not in the index and were left out")
    return Plan(list(rows.values()), index.bad, _skipped(index), warnings, None if crl is None else _continued(crl))


def _skipped(index: Index) -> int:
    """Bad lines that left no entry: the others were revoked ones, and are imported."""
    kept = {entry.line for entry in index.entries}
    return len({bad.line for bad in index.bad} - kept)


def _row(
    entry: IndexEntry, known: x509.Certificate | None, ca: x509.Certificate, now: int, warnings: list[str]
) -> ImportRow:
    not_after = entry.not_after
    if known is not None:
        not_after = int(known.not_valid_after_utc.timestamp())
    elif not_after is None:
        not_after = int(ca.not_valid_after_utc.timestamp())
        warnings.append(f"line {entry.line}: unreadable notAfter, taken as the CA's own")
    revoked_at = entry.revoked_at
    if entry.revoked and revoked_at is None:
        revoked_at = now
        warnings.append(f"line {entry.line}: unreadable revocation date, taken as now")
    elif revoked_at is not None:
        revoked_at = _publishable(revoked_at, f"line {entry.line}", now, warnings)
    reason = int(entry.reason) if entry.reason is not None else None
    return _import_row(entry.serial, not_after, reason, revoked_at, known)


def _publishable(revoked_at: int, where: str, now: int, warnings: list[str]) -> int:
    """The date, moved to where signers can say it: no thisUpdate may lie ahead of the clock, no time before 1970."""
    moved = min(max(revoked_at, 0), now)
    if moved != revoked_at:
        said = "is in the future, taken as now" if moved == now else "is before 1970, taken as 1970"
        warnings.append(f"{where}: the revocation date {said}")
    return moved


def _import_row(
    serial: bytes, not_after: int, reason: int | None, revoked_at: int | None, known: x509.Certificate | None
) -> ImportRow:
    # The bucket is set when the issuer's bucket count is known, in `run`.
    if known is None:
        return ImportRow(serial, not_after, 0, reason, revoked_at)
    spki = known.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return ImportRow(
        serial,
        not_after,
        0,
        reason,
        revoked_at,
        der=known.public_bytes(Encoding.DER),
        spki_sha256=hashlib.sha256(spki).digest(),
        ski=_ski(known),
        not_before=int(known.not_valid_before_utc.timestamp()),
    )


def _ski(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return None


def _certificates(source: Source, warnings: list[str], progress: Progress) -> Iterator[tuple[bytes, x509.Certificate]]:
    """The issued certificates of the folder that verify under the CA; others are warned of. `import.unreadable`."""
    folder = Path(source.certs or "")
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise QuashError("import.unreadable", f"{folder}: {error.strerror}") from None
    for number, path in enumerate(files, 1):
        if number % 500 == 0 or number == len(files):
            progress("reading certificates", number, len(files))
        try:
            certificate = _read_certificate(_read(path))
            certificate.verify_directly_issued_by(source.ca)
        except (ValueError, TypeError, InvalidSignature):
            warnings.append(f"{path.name}: not a certificate of this CA, left out")
            continue
        yield der.integer_content(certificate.serial_number), certificate


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # not left out: its key would go unknown, and with it its siblings
        raise QuashError("import.unreadable", f"{path}: {error.strerror}") from None


def _read_certificate(body: bytes) -> x509.Certificate:
    if b"-----BEGIN CERTIFICATE" in body:
        return x509.load_pem_x509_certificate(body)
    return x509.load_der_x509_certificate(body)


def _old_crl(source: Source, now: int) -> x509.CertificateRevocationList:
    """The CA's last CRL: its number and time are where ours go on from. Raises `import.crl_*`."""
    body = source.crl or b""
    try:
        crl = x509.load_pem_x509_crl(body) if b"-----BEGIN" in body else x509.load_der_x509_crl(body)
    except ValueError:
        raise QuashError("import.crl_unreadable", "--crl is not a CRL, neither PEM nor DER") from None
    key = source.ca.public_key()
    if crl.issuer != source.ca.subject or not crl.is_signature_valid(key):  # type: ignore[arg-type]
        raise QuashError("import.crl_foreign", "--crl was not signed by --ca")
    if crl.last_update_utc.timestamp() > now + _MAX_CLOCK_STEP:
        raise QuashError("import.crl_from_future", "--crl says it is from the future: set this machine's clock right")
    return crl


def _add_crl_entries(
    rows: dict[bytes, ImportRow],
    crl: x509.CertificateRevocationList,
    ca: x509.Certificate,
    now: int,
    warnings: list[str],
) -> None:
    """What the old CRL revoked stays revoked, whatever the index says."""
    for entry in crl:
        serial = der.integer_content(entry.serial_number)
        row = rows.get(serial)
        if row is not None and row.reason is not None:
            continue
        where = "is not in the index" if row is None else "is not revoked in the index"
        warnings.append(f"serial {format_serial(serial)} is on the CRL but {where}: imported as revoked")
        base = row or ImportRow(serial, int(ca.not_valid_after_utc.timestamp()), 0)
        date = int(entry.revocation_date_utc.timestamp())
        revoked_at = _publishable(date, f"serial {format_serial(serial)}", now, warnings)
        rows[serial] = replace(base, reason=int(_crl_reason(entry)), revoked_at=revoked_at)


def _crl_reason(entry: x509.RevokedCertificate) -> Reason:
    try:
        flag = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, ValueError):
        return Reason.unspecified
    return published_reason(flag.value)


def _continued(crl: x509.CertificateRevocationList) -> OldCrl:
    this_update = int(crl.last_update_utc.timestamp())
    ends = crl.next_update_utc
    return OldCrl(_crl_number(crl), this_update, int(ends.timestamp()) if ends else this_update)


def _crl_number(crl: x509.CertificateRevocationList) -> int:
    """0 for a CRL of version 1 or without a number."""
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return 0
