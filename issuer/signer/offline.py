"""Explicit commands with a key that is kept offline (D20, G4): its CRL again, its OCSP signer again.

Both are run where the key and its passphrase are for the moment, and change nothing but what they name.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from issuer.signer.authority import authority_of
from issuer.signer.ceremony import Ceremony
from issuer.signer.crl_checks import MAX_CLOCK_STEP
from issuer.signer.deployment import Deployment
from issuer.signer.key_files import ceremony_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.ocsp_signer import ensure_ocsp_signer
from issuer.signer.publish_files import write_file
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, certificate_list, read_crl, read_entry, tbs_cert_list
from quash.pki.reasons import Reason
from quash.store import crl_entries, crls, issuers, signing_log
from quash.store.crl_entries import Listing
from quash.store.crls import ScopeState
from quash.store.database import Pool, acquire
from quash.store.issuers import Issuer


async def renew_crl(deployment: Deployment, name: str) -> Crl:
    """Signs and publishes the next CRL of an issuer whose key is offline; returns it as published."""
    issuer = await offline_issuer(deployment.pool, name)
    async with _signer(deployment) as signer:
        return await sign_offline_crl(deployment, signer, issuer)


async def renew_ocsp_signer(deployment: Deployment, name: str) -> None:
    """Gives an issuer whose key is offline a new OCSP signer; the old one's answers are served until they end."""
    issuer = await offline_issuer(deployment.pool, name)
    wanted = next((each.ocsp_signer for each in deployment.config.issuers if each.name == name), None)
    if wanted is None:
        raise QuashError("hierarchy.not_configured", f"the configuration has no issuer {name}; use the one of init")
    async with _signer(deployment) as signer:
        ceremony = Ceremony(deployment.pool, signer, deployment.clock)
        await ensure_ocsp_signer(ceremony, deployment.files, issuer, wanted.key, wanted.days, renew=True)


async def sign_offline_crl(deployment: Deployment, signer: CaSigner, issuer: Issuer) -> Crl:
    """Flow 3 for an issuer whose key is offline, with its one scope. The number of an attempt that failed is spent."""
    pool = deployment.pool
    # 1. What the CRL must list, and what it thereby covers, in one snapshot.
    plan = await plan_of(pool, issuer)
    scope, path = plan.state.scope, deployment.state.crl / plan.state.scope.path
    published = read_crl(path.read_bytes()) if path.exists() else None
    # 2. A number that never comes back.
    number, tbs = await reserve_tbs(deployment, issuer, plan, published)
    # 3. Sign.
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    body = certificate_list(tbs, algorithm, await signer.sign_crl(issuer.id, scope.scope, tbs))
    # 4. Read it back as a stranger would, and against what it replaces.
    crl = read_crl(body)
    verify(issuer.spki, algorithm, algorithm.decode(crl.signature), crl.tbs)
    await check_nothing_lost(pool, plan, published, crl)
    # 5. Publish, and say so.
    async with acquire(pool) as conn:
        await crls.signed(conn, scope, number, hashlib.sha256(body).digest(), len(body))
    write_file(path, body)
    async with acquire(pool) as conn:
        await crls.published(conn, scope, number, deployment.now())
    return crl


async def reserve_tbs(deployment: Deployment, issuer: Issuer, plan: Plan, published: Crl | None) -> tuple[int, bytes]:
    """(number, TBSCertList) of the next CRL: a number above whatever was stored, signed or published (B7).

    thisUpdate rises too, and nextUpdate is not beyond the issuer's own end. Raises `crl.clock_went_back`,
    `crl.issuer_expired`.
    """
    stored, now = plan.state.newest, deployment.now()
    number = 1 + max(stored.number if stored else 0, plan.last_signed, published.number if published else 0)
    last = max(stored.this_update if stored else 0, published.this_update if published else 0)
    this_update = now if plan.state.may_go_back and last > now else max(now, last + 1)
    if this_update > now + MAX_CLOCK_STEP:
        raise QuashError(
            "crl.clock_went_back",
            "the clock is more than 5 minutes behind the CRL made last: set it right or, if that CRL is from the"
            " future, order another with quash crl replace-future",
            Kind.REFUSED,
        )
    if this_update >= plan.not_after:
        raise QuashError("crl.issuer_expired", f"{issuer.name} has ended: import its renewed certificate", Kind.REFUSED)
    next_update = min(this_update + deployment.config.crl.root_validity, plan.not_after)
    async with acquire(deployment.pool) as conn:
        await crls.reserve(
            conn,
            plan.state.scope,
            number=number,
            this_update=this_update,
            next_update=next_update,
            entries=plan.listing.count,
            covers=plan.covers,
            scheduled=True,
        )
    return number, _tbs(plan, issuer, number, this_update, next_update)


def _tbs(plan: Plan, issuer: Issuer, number: int, this_update: int, next_update: int) -> bytes:
    return tbs_cert_list(
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        issuer=issuer.subject,
        this_update=this_update,
        next_update=next_update,
        entries=(plan.listing.encoded,),
        authority_key_id=plan.key_id,
        number=number,
        idp_urls=plan.state.scope.idp_urls,
        only=None,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next CRL of an offline issuer must list and follow."""

    state: ScopeState
    listing: Listing
    covers: str
    last_signed: int
    key_id: bytes
    not_after: int


async def plan_of(pool: Pool, issuer: Issuer) -> Plan:
    async with acquire(pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        states = await crls.states(conn, offline=True)
        state = next(state for state in states if state.scope.issuer_id == issuer.id and state.scope.shard is None)
        own = await issuers.certificate(conn, issuer.id)
        if own is None:
            raise QuashError("signer.issuer_certificate", f"{issuer.name} has no certificate yet", Kind.REFUSED)
        return Plan(
            state=state,
            listing=await crl_entries.listing(conn, state.scope, state.regular),
            covers=await crl_entries.snapshot(conn),
            last_signed=await signing_log.last_crl_number(conn, issuer.id, state.scope.scope) or 0,
            key_id=authority_of(issuer, own.der).key_id,
            not_after=own.not_after,
        )


async def check_nothing_lost(pool: Pool, plan: Plan, published: Crl | None, crl: Crl) -> None:
    """Every entry of the published CRL is on the new one, or may go by B13; else a backup was restored, or worse.

    It changes only to keyCompromise, and its date only back, and only then (B25, C16).
    """
    if published is None:
        return
    before, after = _by_serial(published), _by_serial(crl)
    for serial in before.keys() & after.keys():
        (was_at, was), (at, reason) = before[serial], after[serial]
        if (at, reason) != (was_at, was) and (reason != Reason.keyCompromise or at > was_at):
            raise QuashError(
                "crl.entry_changed",
                f"serial {serial.hex()} on {plan.state.scope.path} would change otherwise than to keyCompromise; look"
                " who wrote into the database",
                Kind.REFUSED,
            )
    gone = before.keys() - after.keys()
    async with acquire(pool) as conn:
        gone -= await crl_entries.may_go(conn, plan.state.scope, plan.state.regular, list(gone))
    if gone:
        raise QuashError(
            "crl.entries_lost",
            f"{plan.state.scope.path} lists {len(gone)} serials that the database has lost; repair the database",
            Kind.REFUSED,
        )


def _by_serial(crl: Crl) -> dict[bytes, tuple[int, int]]:
    return {serial: (at, reason) for serial, at, reason in map(read_entry, crl.entries)}


async def offline_issuer(pool: Pool, name: str) -> Issuer:
    async with acquire(pool) as conn:
        issuer = await issuers.find_by_name(conn, name)
    if issuer is None:
        raise QuashError("issuer.unknown", f"there is no issuer {name}", Kind.NOT_FOUND)
    if issuer.key_ref is not None:
        raise QuashError("hierarchy.not_offline", f"the key of {name} is online; its processes do this", Kind.REFUSED)
    return issuer


@asynccontextmanager
async def _signer(deployment: Deployment) -> AsyncIterator[CaSigner]:
    keys = KeyRing(ceremony_opener(deployment.files))
    try:
        yield CaSigner(deployment.pool, keys, deployment.clock)
    finally:
        await keys.close()
