"""CRLs of an issuer whose key is not even brought here: the octets go out, the signature comes back (G4, D20).

Export takes a number and writes the TBSCertList; anything that signs octets signs it (openssl, an HSM's own tool);
import publishes the CRL after the checks that every CRL passes.
"""

from __future__ import annotations

import hashlib

from issuer.signer.authority import authority_of
from issuer.signer.crl_checks import MAX_CLOCK_STEP, check_frame, read_tbs_crl
from issuer.signer.deployment import Deployment
from issuer.signer.offline import Plan, offline_issuer, pass_gate, plan_of, publish, reserve_tbs
from quash.errors import Kind, QuashError
from quash.pki.crl import Crl, certificate_list, cut_entries, read_crl
from quash.pki.crl_gate import Expected
from quash.store import crl_entries, crls, issuers, signing_log
from quash.store.database import acquire


async def export_tbs(deployment: Deployment, name: str) -> bytes:
    """The TBSCertList of the next CRL; its number is spent, whether or not the signature ever comes back."""
    issuer = await offline_issuer(deployment.pool, name)
    _, tbs = await reserve_tbs(deployment, await plan_of(deployment, issuer))
    return tbs


async def import_signed(deployment: Deployment, name: str, tbs: bytes, signature: bytes) -> Crl:
    """Publishes an exported TBSCertList with its signature (as in the BIT STRING: DER for ECDSA), once.

    Raises `crl.not_exported`, `crl.stale`, and the codes of the gate and of `crl_checks`.
    """
    issuer = await offline_issuer(deployment.pool, name)
    # 1. It is what we exported last, in form, number, times and entries.
    plan = await plan_of(deployment, issuer)
    expected = await _check_exported(deployment, plan, tbs)
    # 2. With the issuer's signature it passes the gate, and nothing that is published gets lost.
    algorithm = plan.terms.algorithm
    body = certificate_list(tbs, algorithm, algorithm.decode(signature))
    crl, scope = await pass_gate(deployment, plan, expected, body), plan.state.scope
    # 3. Log the signature, remember the octets, publish, and say so.
    async with acquire(deployment.pool) as conn:
        digest = hashlib.sha256(tbs).digest()
        added = await signing_log.add_crl(
            conn, at=deployment.now(), issuer_id=issuer.id, scope=scope.scope, number=crl.number, tbs_sha256=digest
        )
        if not added:
            raise _refuse("not_exported", "a CRL with this number was signed before; export another")
        await crls.signed(conn, scope, crl.number, hashlib.sha256(body).digest(), len(body))
    await publish(deployment, plan, crl, body)
    return crl


async def _check_exported(deployment: Deployment, plan: Plan, tbs: bytes) -> Expected:
    """Between export and import the octets were out of our hands, so all of them are checked against the database."""
    issuer = plan.issuer
    newest, scope = plan.state.newest, plan.state.scope
    async with acquire(deployment.pool) as conn, conn.transaction(readonly=True):
        own = await issuers.certificate(conn, issuer.id)
        since = await crl_entries.changes(conn, scope, newest.covers) if newest else []
    if own is None:
        raise _refuse("not_exported", f"{issuer.name} has no certificate")
    authority = authority_of(issuer, own.der)
    frame = read_tbs_crl(tbs, authority)
    check_frame(frame, authority, scope)
    if newest is None or newest.published_at is not None or newest.number != frame.number:
        raise _refuse("not_exported", f"number {frame.number} is not the one exported last; export again")
    if (frame.this_update, frame.next_update) != (newest.this_update, newest.next_update):
        raise _refuse("not_exported", "its times are not those that were exported")
    if not frame.this_update - MAX_CLOCK_STEP <= deployment.now() < frame.next_update:
        raise _refuse("stale", "its times are over or yet to come; export again")
    algorithm = authority.algorithm
    entries = read_crl(certificate_list(tbs, algorithm, b"\x01" * (algorithm.raw_size or 1))).entries
    # Revocations since the export take nobody's place: its CRL counts as showing all those before (`covers`).
    known = set(cut_entries(plan.listing.encoded)) - {entry for _, entry in since}
    if len(entries) != newest.entries or len(set(entries)) != len(entries) or not known.issuperset(entries):
        raise _refuse("not_exported", "its entries are not those exported, or one was upgraded since; export again")
    return Expected(
        number=newest.number,
        this_update=newest.this_update,
        next_update=newest.next_update,
        entries=newest.entries,
        now=deployment.now(),
        goes_back=plan.state.may_go_back,
    )


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"crl.{what}", f"the CRL is not published: {message}", Kind.REFUSED)
