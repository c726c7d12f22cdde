"""Explicit commands with a key that is kept offline (D20, G4): its CRL again, its OCSP signer again.

Both are run where the key and its passphrase are for the moment, and change nothing but what they name.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from issuer.signer.authority import authority_of
from issuer.signer.ceremony import Ceremony
from issuer.signer.deployment import Deployment
from issuer.signer.key_files import ceremony_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.ocsp_signer import ensure_ocsp_signer
from issuer.signer.publish_files import write_file
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.pki import crl_gate, crl_lint
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, certificate_list, read_crl, tbs_cert_list
from quash.pki.crl_gate import Expected, Published, Terms
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
        ceremony = Ceremony(deployment, signer)
        await ensure_ocsp_signer(ceremony, deployment.files, issuer, wanted.key, wanted.days, renew=True)


async def sign_offline_crl(deployment: Deployment, signer: CaSigner, issuer: Issuer) -> Crl:
    """Flow 3 for an issuer whose key is offline, with its one scope. The number of an attempt that failed is spent."""
    # 1. What the CRL must list, and what it thereby covers, in one snapshot.
    plan = await plan_of(deployment, issuer)
    # 2. A number that never comes back, of a list that pleases pkilint.
    expected, tbs = await reserve_tbs(deployment, plan)
    # 3. Sign.
    algorithm = plan.terms.algorithm
    body = certificate_list(tbs, algorithm, await signer.sign_crl(issuer.id, plan.state.scope.scope, tbs))
    # 4. Read it back as a stranger would, and against what it replaces.
    crl = await pass_gate(deployment, plan, expected, body)
    # 5. Publish, and say so.
    async with acquire(deployment.pool) as conn:
        await crls.signed(conn, plan.state.scope, crl.number, hashlib.sha256(body).digest(), len(body))
    await publish(deployment, plan, crl, body)
    return crl


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next CRL of an offline issuer must say, list and follow.

    `expected`: how many entries there are by the database's own count; `published`: what lies in the folder.
    """

    issuer: Issuer
    state: ScopeState
    terms: Terms
    listing: Listing
    expected: int
    covers: str
    last_signed: int
    published: Published | None


async def plan_of(deployment: Deployment, issuer: Issuer) -> Plan:
    """Reads it in one snapshot. Raises `signer.issuer_certificate`, `crl.malformed`, `signature.invalid`."""
    async with acquire(deployment.pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        states = await crls.states(conn, offline=True)
        state = next(state for state in states if state.scope.issuer_id == issuer.id and state.scope.shard is None)
        own = await issuers.certificate(conn, issuer.id)
        if own is None:
            raise QuashError("signer.issuer_certificate", f"{issuer.name} has no certificate yet", Kind.REFUSED)
        terms = Terms(
            issuer=issuer.subject,
            spki=issuer.spki,
            algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
            authority_key_id=authority_of(issuer, own.der).key_id,
            idp_urls=state.scope.idp_urls,
            only=None,
            not_after=own.not_after,
        )
        listing = await crl_entries.listing(conn, state.scope, state.regular)
        return Plan(
            issuer=issuer,
            state=state,
            terms=terms,
            listing=listing,
            expected=await crl_entries.total(conn, state.scope) - listing.gone,
            covers=await crl_entries.snapshot(conn),
            last_signed=await signing_log.last_crl_number(conn, issuer.id, state.scope.scope) or 0,
            published=_published(deployment.state.crl / state.scope.path, terms),
        )


def _published(path: Path, terms: Terms) -> Published | None:
    """What the world was told, by this issuer; its terms may have been others then."""
    if not path.exists():
        return None
    try:
        crl = read_crl(path.read_bytes())
        verify(terms.spki, terms.algorithm, terms.algorithm.decode(crl.signature), crl.tbs)
    except QuashError as error:
        message = f"{path}: {error.message}; put the published CRL back, or remove the file when it is lost"
        raise QuashError(error.code, message, Kind.CONFLICT) from error
    return Published(crl.number, crl.this_update, crl.revoked, len(crl.entries))


async def reserve_tbs(deployment: Deployment, plan: Plan) -> tuple[Expected, bytes]:
    """The next CRL, as expected and as a TBSCertList: a number above whatever was stored, signed or published (B7).

    thisUpdate rises too, and nextUpdate is not beyond the issuer's own end. Nothing is reserved, let alone taken to the
    key, that pkilint refuses. Raises `crl.clock_went_back`, `crl.issuer_expired`, `crl.lint`.
    """
    stored, published, now = plan.state.newest, plan.published, deployment.now()
    number = 1 + max(stored.number if stored else 0, plan.last_signed, published.number if published else 0)
    last = max(stored.this_update if stored else 0, published.this_update if published else 0)
    goes_back = plan.state.may_go_back and last > now
    this_update = now if goes_back else max(now, last + 1)
    crl_gate.check_clock(this_update, now)
    if this_update >= plan.terms.not_after:
        name = plan.issuer.name
        raise QuashError("crl.issuer_expired", f"{name} has ended: import its renewed certificate", Kind.REFUSED)
    expected = Expected(
        number=number,
        this_update=this_update,
        next_update=min(this_update + deployment.config.crl.root_validity, plan.terms.not_after),
        entries=plan.expected,
        now=now,
        goes_back=goes_back,
    )
    tbs = _tbs(plan, expected)
    algorithm = plan.terms.algorithm
    await _lint(plan, certificate_list(tbs, algorithm, b"\x01" * (algorithm.raw_size or 256)))
    async with acquire(deployment.pool) as conn:
        await crls.reserve(
            conn,
            plan.state.scope,
            number=number,
            this_update=this_update,
            next_update=expected.next_update,
            entries=plan.listing.count,
            covers=plan.covers,
            scheduled=True,
        )
    return expected, tbs


def _tbs(plan: Plan, expected: Expected) -> bytes:
    return tbs_cert_list(
        algorithm=plan.terms.algorithm,
        issuer=plan.terms.issuer,
        this_update=expected.this_update,
        next_update=expected.next_update,
        entries=(plan.listing.encoded,),
        authority_key_id=plan.terms.authority_key_id,
        number=expected.number,
        idp_urls=plan.terms.idp_urls,
        only=plan.terms.only,
    )


async def pass_gate(deployment: Deployment, plan: Plan, expected: Expected, body: bytes) -> Crl:
    """The CRL as read from its octets, when it may replace the published one: the gate that every CRL passes.

    Raises the codes of `crl_gate`: `crl.entry_lost` when a backup was restored, or worse.
    """
    crl = crl_gate.read(body, plan.terms)
    lost = crl_gate.check(crl, expected, plan.published, subscribers=not _of_cas(plan))
    if lost:
        async with acquire(deployment.pool) as conn:
            may_go = await crl_entries.may_go(conn, plan.state.scope, plan.state.regular, lost)
        crl_gate.refuse_lost(lost, may_go)
    await _lint(plan, body)
    return crl


async def _lint(plan: Plan, body: bytes) -> None:
    """The whole of it: a root lists few certificates."""
    crl_gate.refuse_findings(await asyncio.to_thread(crl_lint.findings, body, of_cas=_of_cas(plan)))


def _of_cas(plan: Plan) -> bool:
    return plan.issuer.kind == "root"


async def publish(deployment: Deployment, plan: Plan, crl: Crl, body: bytes) -> None:
    """Writes a CRL whose digest is on record into the folder, and records that it is out."""
    write_file(deployment.state.crl / plan.state.scope.path, body)
    async with acquire(deployment.pool) as conn:
        await crls.published(conn, plan.state.scope, crl.number, deployment.now())


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
