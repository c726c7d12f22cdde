"""The CA signer: typed requests in, signatures out; it trusts the database's reservations, not whoever asks.

The caller of `sign_certificate` holds the SPKI and kill-switch locks (flow 1) from before the call until its commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from issuer.ct.tbs import check_match, is_poisoned, plain
from issuer.signer.authority import Authority, authority_of
from issuer.signer.certificate_checks import check_certificate
from issuer.signer.certificate_profiles import OCSP_SIGNER
from issuer.signer.crl_checks import Matched, check_crl, read_tbs_crl
from issuer.signer.extension_rules import Expected
from issuer.signer.key_ring import KeyRing
from issuer.signer.tbs import read_tbs_certificate, tbs_of
from issuer.signer.tbs_writer import write_certificate
from quash.errors import Kind, QuashError
from quash.keys import shares_token
from quash.pki.serials import format_serial
from quash.runtime.clock import Clock
from quash.store import crls, issuers, ocsp_signers, signing, signing_log
from quash.store.crls import Scope
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.signing import Signable
from quash.store.signing_log import SignedCertificate

_CERTIFICATE, _PRECERTIFICATE = "certificate", "precertificate"

_SIGNED = Counter("quash_ca_signer_signed_total", "Signatures of CA keys", ["kind", "issuer"])
_REFUSED = Counter("quash_ca_signer_refused_total", "Requests that the CA signer refused", ["kind", "code"])
_SECONDS = Histogram("quash_ca_signer_seconds", "From holding the key to the answer", ["kind"])


class CaSigner:
    """Signs what is reserved. One request at a time per key; any number of keys side by side."""

    def __init__(self, pool: Pool, keys: KeyRing, clock: Clock) -> None:
        self._pool = pool
        self._keys = keys
        self._clock = clock
        self._matched: dict[tuple[int, str], Matched] = {}

    async def sign_certificate(self, issuer_id: int, serial: bytes) -> bytes:
        """The DER certificate of a reserved serial (content octets); again and after a crash, the same bytes.

        Where a precertificate was signed for the serial, the certificate is its match octet for octet (D18, D19).
        Raises `signer.not_reserved`, `signer.stopped`, `signer.revoked`, `key.blocked`, `tbs.*`, `ct.*` and what
        `KeyRing` raises.
        """
        return await self._sign_reserved(_CERTIFICATE, issuer_id, serial)

    async def sign_precertificate(self, issuer_id: int, serial: bytes) -> bytes:
        """The DER precertificate of a reserved serial whose reserved bytes are poisoned; raises as for certificates."""
        return await self._sign_reserved(_PRECERTIFICATE, issuer_id, serial)

    async def _sign_reserved(self, kind: str, issuer_id: int, serial: bytes) -> bytes:
        with _counted(kind):
            # The session is kept while the key works, without a transaction: as many as there are keys.
            async with self._keys.hold(issuer_id) as key, acquire(self._pool) as conn:
                # 1. The reservation is the only source of the bytes (T1).
                issuer, own, found = await signing.read(conn, issuer_id, serial) or (None, None, None)
                issuer, authority = _authority(issuer_id, issuer, own)
                if found is None:
                    raise _not_reserved(issuer, serial)
                # 2. What was signed before is the answer, for ever.
                if (signed := _signed_before(found, kind)) is not None:
                    return signed
                tbs = _reserved_tbs(found, kind)
                # 3. May this issuer sign now, for this key (G21, C9)?
                _check_permission(issuer, found)
                # 4. The bytes say what the reservation and the profile say.
                now = int(self._clock.now())
                check_certificate(read_tbs_certificate(tbs), authority, _expected(found), now)
                _check_form(kind, tbs, found.precertificate)
                # 5. Sign, and log before the bytes leave.
                certificate = write_certificate(tbs, authority.algorithm, await key.sign(issuer, tbs))
                return await self._log_certificate(conn, kind, issuer, serial, certificate)

    async def sign_crl(self, issuer_id: int, scope: str, tbs: bytes) -> bytes:
        """The raw signature of the next CRL of a scope. A number that was signed is spent (B7): retry with another.

        Raises `crl.*` and whatever `KeyRing` raises. The kill switch does not stop CRLs: revoking must go on (G21).
        """
        with _counted("crl"):
            async with self._keys.hold(issuer_id) as key:
                async with acquire(self._pool) as conn:
                    issuer, authority = _authority(issuer_id, *await issuers.with_certificate(conn, issuer_id))
                    found = await _scope(conn, issuer, scope)
                    last = await signing_log.last_crl_number(conn, issuer_id, scope)
                now = int(self._clock.now())
                matched = self._matched.setdefault((issuer_id, scope), Matched())
                crl = await key.run(lambda: read_tbs_crl(tbs, authority, matched))
                check_crl(crl, authority, found, last, now)
                signature = await key.sign(issuer, tbs)
                await self._log_crl(issuer, scope, crl.number, tbs)
                return signature

    async def open_keys(self) -> None:
        """Opens the key of every issuer whose key is online; raises for the first that does not open, or is away since.

        Raises `key.shared_token` when one is on the token of an OCSP signer's key, whose PIN another process has.
        """
        async with acquire(self._pool) as conn:
            online = [issuer for issuer in await issuers.all_issuers(conn) if issuer.key_ref is not None]
            signers = await ocsp_signers.in_service(conn)
        for issuer in online:
            if any(shares_token(issuer.key_ref or "", signer.key_ref) for signer in signers):
                raise QuashError(
                    "key.shared_token",
                    f"the key of {issuer.name} is on the token of OCSP keys: move it to a token of its own",
                    Kind.UNAVAILABLE,
                )
            async with self._keys.hold(issuer.id) as key:
                await key.open(issuer)

    async def _log_certificate(
        self, conn: Connection, kind: str, issuer: Issuer, serial: bytes, certificate: bytes
    ) -> bytes:
        """Logs the certificate and returns it, or the one that another signer process logged first."""
        added = await signing_log.add_certificate(
            conn,
            at=int(self._clock.now()),
            kind=kind,
            issuer_id=issuer.id,
            serial=serial,
            tbs_sha256=hashlib.sha256(tbs_of(certificate)).digest(),
            der=certificate,
        )
        if added:
            _SIGNED.labels(kind, issuer.name).inc()
            return certificate
        first = await signing_log.find_certificate(conn, issuer.id, serial, kind)
        if first is None:
            raise QuashError("signer.log_lost", "the signing log lost a row while we looked at it", Kind.INTERNAL)
        return first.der

    async def _log_crl(self, issuer: Issuer, scope: str, number: int, tbs: bytes) -> None:
        async with acquire(self._pool) as conn:
            added = await signing_log.add_crl(
                conn,
                at=int(self._clock.now()),
                issuer_id=issuer.id,
                scope=scope,
                number=number,
                tbs_sha256=hashlib.sha256(tbs).digest(),
            )
        if not added:
            raise QuashError("crl.number", f"CRL number {number} was spent meanwhile; build it again", Kind.CONFLICT)
        _SIGNED.labels("crl", issuer.name).inc()


def _authority(
    issuer_id: int, issuer: Issuer | None, own: issuers.IssuerCertificate | None
) -> tuple[Issuer, Authority]:
    if issuer is None:
        raise QuashError("signer.issuer_unknown", f"there is no issuer {issuer_id}", Kind.NOT_FOUND)
    if own is None:
        raise QuashError("signer.issuer_certificate", f"{issuer.name} has no certificate yet", Kind.REFUSED)
    return issuer, authority_of(issuer, own.der)


def _signed_before(found: Signable, kind: str) -> bytes | None:
    """The logged certificate; `signer.reservation_changed` when the bytes reserved now are not those signed then."""
    signed = found.certificate if kind == _CERTIFICATE else found.precertificate
    if signed is None:
        return None
    reservation = found.reservation
    if reservation.tbs is not None and hashlib.sha256(reservation.tbs).digest() != signed.tbs_sha256:
        raise QuashError(
            "signer.reservation_changed",
            f"serial {format_serial(reservation.certificate.serial)} was signed with other bytes;"
            " nothing else is signed for it",
            Kind.CONFLICT,
        )
    return signed.der


def _reserved_tbs(found: Signable, kind: str) -> bytes:
    """The bytes to sign; only a reservation has them, whatever the row's other columns say."""
    reservation = found.reservation
    logged = kind == _CERTIFICATE and found.precertificate is not None
    signable = ("reserved", "precertificate") if logged else ("reserved",)
    if reservation.certificate.state not in signable or reservation.tbs is None:
        raise QuashError(
            "signer.not_reserved",
            f"serial {format_serial(reservation.certificate.serial)} is in state {reservation.certificate.state}",
            Kind.REFUSED,
        )
    return reservation.tbs


def _check_form(kind: str, tbs: bytes, precertificate: SignedCertificate | None) -> None:
    """Poison in precertificates alone; SCTs only after a precertificate was signed, and then as its match (D19)."""
    if is_poisoned(tbs) != (kind == _PRECERTIFICATE):
        raise QuashError("tbs.form", f"the reserved bytes are no {kind}: nothing is signed (D18)", Kind.REFUSED)
    if kind == _PRECERTIFICATE:
        return
    if precertificate is not None:
        check_match(tbs_of(precertificate.der), tbs)
    elif plain(tbs) != tbs:
        raise QuashError("tbs.form", "it has SCTs, but no precertificate was ever signed (E7)", Kind.REFUSED)


def _not_reserved(issuer: Issuer, serial: bytes) -> QuashError:
    return QuashError(
        "signer.not_reserved", f"{issuer.name} has no serial {format_serial(serial)}; reserve it first", Kind.REFUSED
    )


def _check_permission(issuer: Issuer, found: Signable) -> None:
    # G21: issuance stops, not the answers about what was issued, which need their signer.
    if found.reservation.certificate.profile != OCSP_SIGNER:
        if found.issuer_revoked:
            raise QuashError(
                "signer.issuer_revoked", f"the certificate of {issuer.name} is revoked: it issues nothing", Kind.REFUSED
            )
        if found.stopped:
            raise QuashError("signer.stopped", f"the kill switch stops {issuer.name}; release it first", Kind.REFUSED)
    if found.revoked:
        raise QuashError(
            "signer.revoked", "this serial is revoked: nothing more is signed for it; order anew", Kind.REFUSED
        )
    if found.blocked:
        raise QuashError("key.blocked", "this public key is blocked for ever; use another key pair", Kind.REFUSED)


async def _scope(conn: Connection, issuer: Issuer, name: str) -> Scope:
    shard = int(name) if name.isdecimal() and name.isascii() and len(name) <= 9 else None
    found = await crls.find_scope(conn, issuer.id, shard)
    if found is None or found.scope != name:
        raise QuashError("signer.scope_unknown", f"{issuer.name} has no CRL scope {name!r}", Kind.NOT_FOUND)
    return found


def _expected(found: Signable) -> Expected:
    row = found.reservation.certificate
    if row.spki_sha256 is None or row.not_before is None:
        raise QuashError("signer.not_reserved", "the reservation has no key or no notBefore", Kind.REFUSED)
    return Expected(
        profile=row.profile,
        serial=row.serial,
        spki_sha256=row.spki_sha256,
        not_before=row.not_before,
        not_after=row.not_after,
        crl_url=found.crl_url,
    )


@contextmanager
def _counted(kind: str) -> Iterator[None]:
    """Times a request and counts its refusal by code."""
    with _SECONDS.labels(kind).time():
        try:
            yield
        except QuashError as error:
            _REFUSED.labels(kind, error.code).inc()
            raise
