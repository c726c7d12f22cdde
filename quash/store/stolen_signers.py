"""An OCSP signer whose key others may know: a new one is ordered, and a case opened for what that cannot repair.

Part of blocking a key (`quash.store.blocked_keys`), whoever does so and in the same transaction: one officer, or one
proof, is enough. Nobody has to notice that the key is a signer's.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Sequence

from quash.pki.certificate import read_certificate
from quash.store import acts, cases, issuers, ocsp_signers, signer_requests
from quash.store.database import Connection
from quash.store.issuers import Issuer
from quash.store.ocsp_signers import OcspSigner


async def replace(conn: Connection, spki_sha256: Collection[bytes], *, at: int, cause: int) -> None:
    """What follows when these keys are blocked by the act `cause`; for keys that are no signer's, nothing.

    A signer that was replaced already needs no other switch, nor another case where one has its certificate. One whose
    issuer's key is offline is for the people who see the case: no process here can make its successor.
    """
    stolen = [
        each for each in await ocsp_signers.in_service(conn) if each.not_after >= at and _key(each) in spki_sha256
    ]
    if not stolen:
        return
    act = await acts.get(conn, cause)
    actor = act.actor if act is not None else "unknown"
    known = {issuer.id: issuer for issuer in await issuers.all_issuers(conn)}
    for signer in stolen:
        issuer, active = known[signer.issuer_id], signer.state == "active"
        if active and issuer.key_ref is not None:
            await signer_requests.order_switch(conn, issuer.id, issuer.name, actor=actor, at=at)
        if active or not await cases.holding(conn, issuer.id, _serial(signer)):
            await ensure_case(conn, issuer, [signer], actor=actor, at=at)


async def ensure_case(conn: Connection, issuer: Issuer, signers: Sequence[OcspSigner], *, actor: str, at: int) -> int:
    """The number of a case of theirs that is open; one is opened for those that are in none (`open_case`)."""
    grounds = await cases.open_grounds(conn, [(issuer.id, _serial(each)) for each in signers], alleged=True)
    known = [grounds.get((issuer.id, _serial(each)), {}).get(_TRIGGER) for each in signers]
    lacking = [signer for signer, case_id in zip(signers, known, strict=True) if case_id is None]
    if lacking:
        return await open_case(conn, issuer, lacking, actor=actor, at=at)
    return max(case_id for case_id in known if case_id is not None)


async def open_case(conn: Connection, issuer: Issuer, signers: Sequence[OcspSigner], *, actor: str, at: int) -> int:
    """The case of a key that others may know (C1), with every signer certificate that it may be; returns its number.

    A switch repairs our own answers alone: what is decided about forged ones, up to the CA itself (C3), is the case's.
    """
    until = dt.datetime.fromtimestamp(max(each.not_after for each in signers), dt.UTC)
    subject = {"trigger": _TRIGGER, "received_at": at, "reporter": actor}
    opened = await acts.record(conn, at=at, actor=actor, action=cases.OPEN, subject=subject)
    case_id = await cases.add(
        conn,
        trigger=_TRIGGER,
        received_at=at,
        opened_at=at,
        reporter=actor,
        summary=f"The key of an OCSP signer of {issuer.name} may be known to others, who can forge `good` until"
        f" {until:%Y-%m-%dT%H:%M:%SZ}: revoke the signer's certificate, and decide whether the issuing CA must be"
        " revoked (sub-ca-3).",
        act_id=opened,
    )
    added = await acts.record(
        conn, at=at, actor=actor, action=cases.ADD, subject={"case": case_id, "certificates": len(signers)}
    )
    await cases.add_certificates(conn, case_id, [(issuer.id, _serial(each)) for each in signers], added)
    return case_id


_TRIGGER = "br-3"


def _key(signer: OcspSigner) -> bytes:
    return hashlib.sha256(read_certificate(signer.certificate).spki).digest()


def _serial(signer: OcspSigner) -> bytes:
    return read_certificate(signer.certificate).serial
