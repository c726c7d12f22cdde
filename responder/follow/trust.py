"""What a node believes of the feed: the database carries records, but it is the signatures that vouch for them.

Whoever can write to the feed must not be able to make a node serve what no signer signed, for longer than allowed, or
from the future (a record with a thisUpdate far ahead would keep true ones of its version out).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509

from quash.cache.layout import NEWER_FORMAT, IssuerRow, Record, TemplateRow, decode_batch, decode_record, record_shape
from quash.cache.writer import Catalog
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.certid import CertIdHash
from quash.pki.certificate import CertificateFields, read_certificate
from quash.pki.ocsp_reading import check_delegation
from quash.pki.ocsp_response import ResponseTemplate, Status
from quash.pki.reasons import ALLOWED_REASONS
from quash.runtime.clock import AHEAD

Item = tuple[int, bytes, bytes]  # issuer_id, serial, encoded record


@dataclass(frozen=True, slots=True)
class Limits:
    """`ahead`: seconds that a thisUpdate or heartbeat may lie ahead of our clock. `sample`: of records that are not
    urgent, one in so many has its signatures verified; urgent ones all."""

    ahead: int = AHEAD
    sample: int = 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something of the feed that is not applied; `code` is the metric's label."""

    code: str
    detail: str


@dataclass(slots=True)
class Judgement:
    """Of some records: those to apply and those refused."""

    accepted: list[Item] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class _Refused(Exception):  # noqa: N818 (a verdict, not a fault of ours)
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code, detail)


@dataclass(frozen=True, slots=True)
class _Signer:
    row: TemplateRow
    certificate: CertificateFields
    template: ResponseTemplate
    max_validity: int

    def tbs(self, algorithm: CertIdHash, serial: bytes, record: Record) -> bytes:
        status = Status(record.reason, record.revoked_at)
        return self.template.tbs(algorithm, serial, status, record.this_update, record.next_update)


class Trust:
    """Judges rows against the issuers and signers it has accepted so far; begins with those of the cache."""

    def __init__(self, known: Catalog, limits: Limits) -> None:
        self._issuers = dict(known.issuers)
        self._limits = limits
        self._signers: dict[int, _Signer] = {}
        self._turn = 0
        for row in known.templates.values():
            self.template(row)

    def fork(self) -> Self:
        """One that knows what this one does, and from now on accepts for itself."""
        other = copy(self)
        other._issuers, other._signers = dict(self._issuers), dict(self._signers)
        return other

    def knows(self, issuer_id: int) -> bool:
        """Whether this issuer was accepted."""
        return issuer_id in self._issuers

    def issuer(self, row: IssuerRow) -> Refusal | None:
        """Accepts a new issuer, and a known one with the same name and key; returns why not, else None."""
        known = self._issuers.get(row.issuer_id, row)
        if (known.subject, known.spki) != (row.subject, row.spki):
            return Refusal("issuer_changed", f"issuer {row.issuer_id} came with another name or key")
        try:
            certificate = read_certificate(row.certificate)
        except QuashError as error:
            return Refusal("issuer_certificate", f"issuer {row.issuer_id}: {error.message}")
        if (certificate.subject, certificate.spki) != (row.subject, row.spki):
            return Refusal("issuer_certificate", f"issuer {row.issuer_id}: the certificate is another CA's")
        self._issuers[row.issuer_id] = row
        for signer in [signer for signer in self._signers.values() if signer.row.issuer_id == row.issuer_id]:
            self._signers[signer.row.signer_id] = _signer(row, signer.row)
        return None

    def template(self, row: TemplateRow) -> Refusal | None:
        """Accepts a signer that its issuer made for OCSP (A13, A14); returns why not, else None."""
        issuer = self._issuers.get(row.issuer_id)
        if issuer is None:
            return Refusal("unknown_issuer", f"signer {row.signer_id} is of issuer {row.issuer_id}, which never came")
        known = self._signers.get(row.signer_id)
        if known is not None:
            return (
                None if known.row == row else Refusal("signer_changed", f"signer {row.signer_id} came again, changed")
            )
        if row.algorithm not in SIGNATURE_ALGORITHMS:
            return Refusal("signer_untrusted", f"signer {row.signer_id}: unknown algorithm {row.algorithm}")
        try:
            if row.certificate != issuer.certificate:
                check_delegation(
                    x509.load_der_x509_certificate(row.certificate), x509.load_der_x509_certificate(issuer.certificate)
                )
            self._signers[row.signer_id] = _signer(issuer, row)
        except (QuashError, ValueError) as error:
            return Refusal("signer_untrusted", f"signer {row.signer_id}: {error}")
        return None

    def heartbeat(self, at: int, now: float) -> Refusal | None:
        """One from the future would keep a cache fresh that is not."""
        if at > now + self._limits.ahead:
            return Refusal("future", f"a heartbeat of {at} at {now:.0f}")
        return None

    def records(self, payload: bytes, *, urgent: bool, now: float) -> Judgement:
        """Judges one feed row. One bad signature in a sample has every record of the row verified.

        Where signatures are not looked at, records of a shape that passed before are not looked at again: nearly all
        of a row of a refresh, or of a mass revocation, have one.
        """
        judgement = Judgement()
        suspicious = urgent
        passed: set[tuple[int, bytes, int]] = set()
        for item in self._items(payload, judgement):
            self._turn += 1
            verified = suspicious or self._turn % self._limits.sample == 0
            shape = (item[0], *record_shape(item[2]))
            if not verified and shape in passed:
                judgement.accepted.append(item)
                continue
            try:
                self._judge(item, now, verified=verified)
            except _Refused as error:
                judgement.refused.append(error.refusal)
                if error.refusal.code == "signature" and not suspicious:
                    suspicious = True
                    self._judge_again(judgement, now)
            else:
                passed.add(shape)
                judgement.accepted.append(item)
        return judgement

    def _items(self, payload: bytes, judgement: Judgement) -> Iterator[Item]:
        try:
            yield from decode_batch(payload)
        except QuashError as error:
            if error.code == NEWER_FORMAT:
                raise
            judgement.refused.append(Refusal("layout", error.message))

    def _judge_again(self, judgement: Judgement, now: float) -> None:
        accepted, judgement.accepted = judgement.accepted, []
        for item in accepted:
            try:
                self._judge(item, now, verified=True)
            except _Refused as error:
                judgement.refused.append(error.refusal)
            else:
                judgement.accepted.append(item)

    def _judge(self, item: Item, now: float, *, verified: bool) -> None:
        issuer_id, _, data = item
        try:
            record = decode_record(data)
        except QuashError as error:
            raise _Refused("layout", f"{_name(item)}: {error.message}") from None
        signer = self._signers.get(record.signer_id)
        if signer is None or signer.row.issuer_id != issuer_id:
            raise _Refused("unknown_signer", f"{_name(item)}: signer {record.signer_id} is not known for this issuer")
        for code, fault in self._faults(record, signer, now):
            if fault:
                raise _Refused(code, f"{_name(item)}: {record.this_update} to {record.next_update} at {now:.0f}")
        if verified:
            _verify(signer, item, record)

    def _faults(self, record: Record, signer: _Signer, now: float) -> tuple[tuple[str, bool], ...]:
        """What can be wrong with a record whatever its signature says."""
        begins, ends = signer.certificate.not_before, signer.certificate.not_after
        size = signer.template.algorithm.raw_size
        return (
            ("future", record.this_update > now + self._limits.ahead),
            ("validity", record.next_update - record.this_update > signer.max_validity),
            ("signer_times", record.this_update < begins or record.next_update > ends),  # A5
            ("reason", record.reason is not None and record.reason not in ALLOWED_REASONS),  # B11
            ("signature", size is not None and len(record.signatures[0]) != size),
        )


def _verify(signer: _Signer, item: Item, record: Record) -> None:
    for algorithm, signature in zip((CertIdHash.SHA1, CertIdHash.SHA256), record.signatures, strict=True):
        try:
            verify(
                signer.certificate.spki, signer.template.algorithm, signature, signer.tbs(algorithm, item[1], record)
            )
        except QuashError as error:
            raise _Refused("signature", f"{_name(item)}, {algorithm.value} CertID: {error.message}") from None


def _signer(issuer: IssuerRow, row: TemplateRow) -> _Signer:
    template = ResponseTemplate(
        issuer_subject=issuer.subject,
        issuer_spki=issuer.spki,
        signer_certificate=row.certificate,
        algorithm=SIGNATURE_ALGORITHMS[row.algorithm],
    )
    return _Signer(row, read_certificate(row.certificate), template, issuer.max_validity)


def _name(item: Item) -> str:
    return f"issuer {item[0]} serial {item[1].hex()}"
