"""CRLs of an issuer whose key is not even brought here: the octets go out, the signature comes back (G4, D20).

Export takes a number and writes the TBSCertList; anything that signs octets signs it (openssl, an HSM's own tool);
import publishes the CRL after the checks that every CRL passes.
"""

from __future__ import annotations

import hashlib

from issuer.signer.authority import authority_of
from issuer.signer.crl_checks import MAX_CLOCK_STEP, check_frame, read_tbs_crl
from issuer.signer.deployment import Deployment
from issuer.signer.offline import Plan, check_nothing_lost, offline_issuer, plan_of, reserve_tbs
from issuer.signer.publish_files import write_file
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.crl import Crl, certificate_list, cut_entries, read_crl
from quash.store import crls, issuers, signing_log
from quash.store.database import acquire
from quash.store.issuers import Issuer


async def export_tbs(deployment: Deployment, name: str) -> bytes:
    """The TBSCertList of the next CRL; its number is spent, whether or not the signature ever comes back."""
    issuer = await offline_issuer(deployment.pool, name)
    plan = await plan_of(deployment.pool, issuer)
    path = deployment.state.crl / plan.state.scope.path
    published = read_crl(path.read_bytes()) if path.exists() else None
    _, tbs = await reserve_tbs(deployment, issuer, plan, published)
    return tbs


async def import_signed(deployment: Deployment, name: str, tbs: bytes, signature: bytes) -> Crl:
    """Publishes an exported TBSCertList with its signature (as in the BIT STRING: DER for ECDSA), once.

    Raises `crl.not_exported`, `crl.stale`, `crl.entries_lost`, `signature.invalid` and what `crl_checks` raises.
    """
    issuer = await offline_issuer(deployment.pool, name)
    algorithm = SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
    # 1. It is what we exported last, in form, number, times and entries.
    plan = await plan_of(deployment.pool, issuer)
    await _check_exported(deployment, issuer, plan, tbs)
    # 2. The signature is the issuer's.
    raw = algorithm.decode(signature)
    verify(issuer.spki, algorithm, raw, tbs)
    # 3. Nothing that is published gets lost.
    body = certificate_list(tbs, algorithm, raw)
    crl, scope = read_crl(body), plan.state.scope
    path = deployment.state.crl / scope.path
    published = read_crl(path.read_bytes()) if path.exists() else None
    await check_nothing_lost(deployment.pool, plan, published, crl)
    # 4. Log the signature, remember the octets, publish, and say so.
    async with acquire(deployment.pool) as conn:
        digest = hashlib.sha256(tbs).digest()
        added = await signing_log.add_crl(
            conn, at=deployment.now(), issuer_id=issuer.id, scope=scope.scope, number=crl.number, tbs_sha256=digest
        )
        if not added:
            raise _refuse("not_exported", "a CRL with this number was signed before; export another")
        await crls.signed(conn, scope, crl.number, hashlib.sha256(body).digest(), len(body))
    write_file(path, body)
    async with acquire(deployment.pool) as conn:
        await crls.published(conn, scope, crl.number, deployment.now())
    return crl


async def _check_exported(deployment: Deployment, issuer: Issuer, plan: Plan, tbs: bytes) -> None:
    """Between export and import the octets were out of our hands, so all of them are checked against the database."""
    async with acquire(deployment.pool) as conn:
        own = await issuers.certificate(conn, issuer.id)
    if own is None:
        raise _refuse("not_exported", f"{issuer.name} has no certificate")
    authority = authority_of(issuer, own.der)
    frame = read_tbs_crl(tbs, authority)
    check_frame(frame, authority, plan.state.scope)
    newest = plan.state.newest
    if newest is None or newest.published_at is not None or newest.number != frame.number:
        raise _refuse("not_exported", f"number {frame.number} is not the one exported last; export again")
    if (frame.this_update, frame.next_update) != (newest.this_update, newest.next_update):
        raise _refuse("not_exported", "its times are not those that were exported")
    if not frame.this_update - MAX_CLOCK_STEP <= deployment.now() < frame.next_update:
        raise _refuse("stale", "its times are over or yet to come; export again")
    algorithm = authority.algorithm
    entries = read_crl(certificate_list(tbs, algorithm, b"\x01" * (algorithm.raw_size or 1))).entries
    known = set(cut_entries(plan.listing.encoded))
    if len(entries) != newest.entries or len(set(entries)) != len(entries) or not known.issuperset(entries):
        raise _refuse("not_exported", "its entries are not those exported, or one was upgraded since; export again")


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"crl.{what}", f"the CRL is not published: {message}", Kind.REFUSED)
