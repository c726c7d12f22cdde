"""Issuers and their OCSP signers as the database has them now: who signs for whom, and what nodes must be told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509

from quash.cache.layout import IssuerRow, TemplateRow, encode_issuer, encode_template
from quash.errors import Kind, QuashError
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.certificate import read_certificate
from quash.store import issuers, ocsp_signers
from quash.store.database import Connection
from quash.store.feed import URGENT, FeedRow
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner

SHORTEST_VALIDITY = 8 * 3600
"""A1: no answer is valid for less, so a signer whose certificate ends sooner signs no more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One issuer: its certificates as DER and parsed, the one that lasts longest first, and its signers in service.

    `revoked`: ids of signers whose certificates are.
    """

    issuer: Issuer
    certificates: tuple[bytes, ...]
    parsed: tuple[x509.Certificate, ...]
    signers: tuple[OcspSigner, ...]
    revoked: frozenset[int] = frozenset()


class Roster:
    """What one reading of the database found; replaced by a new one when news say so."""

    def __init__(self, entries: Mapping[int, Entry]) -> None:
        self._entries = entries

    @classmethod
    async def load(cls, conn: Connection) -> Roster:
        signers = await ocsp_signers.in_service(conn)
        revoked = await ocsp_signers.revoked(conn, signers)
        entries = {}
        for issuer in await issuers.all_issuers(conn):
            found = [certificate.der for certificate in await issuers.certificates(conn, issuer.id)]
            entries[issuer.id] = Entry(
                issuer,
                tuple(found),
                tuple(x509.load_der_x509_certificate(der) for der in found),
                tuple(signer for signer in signers if signer.issuer_id == issuer.id),
                revoked,
            )
        return cls(entries)

    def __contains__(self, issuer_id: int) -> bool:
        return issuer_id in self._entries

    @property
    def issuers(self) -> list[Issuer]:
        return [entry.issuer for entry in self._entries.values()]

    @property
    def signers(self) -> list[OcspSigner]:
        """Every signer in service."""
        return [signer for entry in self._entries.values() for signer in entry.signers]

    @cached_property
    def signer_keys(self) -> Collection[tuple[int, bytes]]:
        """(issuer id, serial) of the certificate of every signer in service: news of one change who signs."""
        return {(signer.issuer_id, read_certificate(signer.certificate).serial) for signer in self.signers}

    @cached_property
    def by_hashes(self) -> Mapping[bytes, int]:
        """Issuers by name hash + key hash of a CertID; the older one where two have the same name and key."""
        return {
            b"".join(issuer_hashes(entry.issuer.subject, entry.issuer.spki, algorithm)): issuer_id
            for issuer_id, entry in sorted(self._entries.items(), reverse=True)
            for algorithm in CertIdHash
        }

    def key_of(self, cert_id: CertId) -> tuple[int, bytes] | None:
        """(issuer id, serial) of what a CertID names; None: a certificate of nobody here."""
        issuer_id = self.by_hashes.get(cert_id.name_hash + cert_id.key_hash)
        return None if issuer_id is None else (issuer_id, cert_id.serial)

    @property
    def parsed_certificates(self) -> Mapping[int, Sequence[x509.Certificate]]:
        """Each issuer's certificates, for `permit`."""
        return {issuer_id: entry.parsed for issuer_id, entry in self._entries.items()}

    def certificate(self, issuer_id: int) -> bytes:
        """The issuer's certificate that lasts longest, DER; raises `presign.no_issuer_certificate`."""
        entry = self._entries.get(issuer_id)
        if entry is None or not entry.certificates:
            raise QuashError(
                "presign.no_issuer_certificate", f"issuer {issuer_id} has no certificate: add it", Kind.UNAVAILABLE
            )
        return entry.certificates[0]

    def ends(self, issuer_id: int) -> int | None:
        """The notAfter of the certificate that lasts longest; None: there is none."""
        entry = self._entries.get(issuer_id)
        return int(entry.parsed[0].not_valid_after_utc.timestamp()) if entry and entry.parsed else None

    def signer(self, issuer_id: int, now: int) -> OcspSigner:
        """The signer of new answers: the newest one whose certificate began and lasts 8 hours more (A1, A5).

        Right after a switch that is the one before, while our clock is behind the CA signer's. One that is revoked
        signs only while there is no other: clients do not ask (A15), and no answer helps them less. Raises
        `presign.no_signer`.
        """
        entry = self._entries.get(issuer_id)
        if entry is not None:
            able = [each for each in entry.signers if each.not_before <= now <= each.not_after - SHORTEST_VALIDITY]
            if able:
                return max(able, key=lambda each: (each.id not in entry.revoked, each.id))
        raise QuashError(
            "presign.no_signer",
            f"issuer {issuer_id} has no OCSP signer whose certificate is valid for 8 hours more: make one",
            Kind.UNAVAILABLE,
        )

    def next_signer_at(self, issuer_id: int, now: int) -> int | None:
        """When a signer takes over that is too young yet; None: there is none."""
        entry = self._entries.get(issuer_id)
        coming = [signer.not_before for signer in (entry.signers if entry else ()) if signer.not_before > now]
        return min(coming, default=None)

    def validity(self, issuer_id: int, now: int, longest: int) -> int:
        """nextUpdate - thisUpdate of an answer signed now: `longest`, or what its signer's certificate has left."""
        try:
            return min(longest, self.signer(issuer_id, now).not_after - now)
        except QuashError:
            return longest  # it has nothing to sign, else its pass would not be complete

    def announcement(self, now: int, max_validity: int, form: int) -> list[FeedRow]:
        """Feed rows that tell nodes of every issuer and of every signer whose answers may still be served.

        `form`: of `layout.ROW_FORMATS`.
        """
        rows = []
        for issuer_id, entry in self._entries.items():
            if not entry.certificates:
                continue
            rows.append(FeedRow(URGENT, "issuer", issuer_id, encode_issuer(_issuer_row(entry, max_validity), form)))
            rows += [
                FeedRow(URGENT, "template", issuer_id, encode_template(_template_row(signer), form))
                for signer in entry.signers
                if signer.not_after >= now
            ]
        return rows


def _issuer_row(entry: Entry, max_validity: int) -> IssuerRow:
    issuer = entry.issuer
    return IssuerRow(
        issuer_id=issuer.id,
        name=issuer.name,
        subject=issuer.subject,
        spki=issuer.spki,
        certificate=entry.certificates[0],
        ocsp_path=issuer.ocsp_path,
        max_age=issuer.max_age,
        max_validity=max_validity,
    )


def _template_row(signer: OcspSigner) -> TemplateRow:
    return TemplateRow(signer.id, signer.issuer_id, signer.signature_algorithm, signer.certificate)
