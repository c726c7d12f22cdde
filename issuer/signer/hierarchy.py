"""What `quash init` does with keys: the hierarchy of the configuration, made as far as it is missing.

Each step commits before the next begins and is found again by what it left: a key by its file, a certificate by its
reservation, an issuer by its row. So `init` may be stopped anywhere, and running it again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

from issuer.signer import ca_profiles, oids
from issuer.signer.authority import authority_of
from issuer.signer.ca_keys import check_ca_key
from issuer.signer.ca_profiles import SubCa
from issuer.signer.ceremony import ACTOR, Ceremony, Wanted
from issuer.signer.checkpoint_key import ensure_checkpoint_key
from issuer.signer.deployment import Deployment
from issuer.signer.key_files import ceremony_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.lint import lint_before_signing
from issuer.signer.ocsp_signer import ensure_ocsp_signer
from issuer.signer.offline import sign_offline_crl
from issuer.signer.operators import ensure_operators
from issuer.signer.publish_files import publish_certificates
from issuer.signer.service import CaSigner
from issuer.signer.tbs_writer import Frame, write_certificate
from quash.errors import Kind, QuashError
from quash.pki import policies
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.name_constraints import NameConstraints
from quash.pki.names import build_name
from quash.pki.rules import DAY
from quash.pki.serials import new_serial
from quash.runtime import config as configuration
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import acts, buckets, crl_demands, crls, issuers, outbox, signing_log
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.leases import Lease

Say = Callable[[str], None]


async def make_hierarchy(config: Config, state: State, pool: Pool, clock: Clock, say: Say) -> None:
    """Makes what is missing; `say` is told each thing that was made. `pool` is the owner's, for 4 connections or more.

    Raises `hierarchy.*`, `lint.failed`, `init.running`, `KeyUnavailable`. What was made before stays.
    """
    deployment = Deployment(config, state, pool, clock)
    keys = KeyRing(ceremony_opener(deployment.files))
    signer = CaSigner(deployment.pool, keys, deployment.clock)
    async with acquire(deployment.pool) as session:
        lease = await Lease.acquire(session, "init")
        if lease is None:
            raise QuashError("init.running", "another quash init is at work; wait for it", Kind.UNAVAILABLE)
        try:
            await _Hierarchy(deployment, signer, say).make()
        finally:
            await keys.close()
            await lease.release()


async def make_sub_ca(deployment: Deployment, signer: CaSigner, wanted: configuration.Issuer) -> None:
    """One sub-CA of the configuration, unless it is there; its OCSP signer comes with the next `init`."""
    async with acquire(deployment.pool) as conn:
        found = await issuers.find_by_name(conn, wanted.name)
    if found is None:
        await _Hierarchy(deployment, signer, lambda _: None).make_sub_ca(wanted)


class _Hierarchy:
    def __init__(self, deployment: Deployment, signer: CaSigner, say: Say) -> None:
        self._deployment = deployment
        self._config = deployment.config
        self._files = deployment.files
        self._pool = deployment.pool
        self._now = deployment.now
        self._signer = signer
        self._ceremony = Ceremony(deployment, signer)
        self._say = say

    async def make(self) -> None:
        # 1. The issuers, parents first.
        for wanted in _parents_first(self._config.issuers):
            issuer = await self._ensure_issuer(wanted)
            # 2. Who signs its OCSP answers (A13-A17).
            signer = wanted.ocsp_signer
            if await ensure_ocsp_signer(self._ceremony, self._files, issuer, signer.key, signer.days):
                self._say(f"made an OCSP signer of {issuer.name}")
            # 3. The first CRL where the key is offline (B5); the CRL builder makes those of the others.
            if issuer.key_ref is None and not await self._has_crl(issuer):
                await sign_offline_crl(self._deployment, self._signer, issuer)
                self._say(f"signed the first CRL of {issuer.name}")
        async with acquire(self._pool) as conn:
            # 4. CRL URLs for new certificates, where the origin has moved.
            await self._move_scopes(conn)
            # 5. Certificates for those who build chains.
            await publish_certificates(conn, self._deployment.state)
            # 6. Who may use the two APIs.
            await ensure_operators(self._deployment, conn, self._say)
        # 7. What the ledger's checkpoints are signed with (F7).
        if ensure_checkpoint_key(self._deployment):
            self._say("made the key of the ledger's checkpoints")

    async def _ensure_issuer(self, wanted: configuration.Issuer) -> Issuer:
        async with acquire(self._pool) as conn:
            found = await issuers.find_by_name(conn, wanted.name)
        if found is None:
            found = await (self._make_root(wanted) if wanted.parent is None else self.make_sub_ca(wanted))
            self._say(f"made issuer {found.name}")
        if found.shard_count != wanted.shards:  # B16: never by the way
            raise QuashError(
                "hierarchy.shards_changed",
                f"{wanted.name} has {found.shard_count} CRL shards, the configuration says {wanted.shards}: change them"
                f" with quash ca shards --issuer {wanted.name} --count {wanted.shards}, or correct the configuration",
                Kind.REFUSED,
            )
        profiles = self._profiles(wanted.name)
        if found.profiles != profiles:
            async with acquire(self._pool) as conn:
                await issuers.set_profiles(conn, found.id, profiles)
        return found

    def _profiles(self, issuer: str) -> tuple[str, ...]:
        return tuple(profile.name for profile in self._config.profiles if profile.issuer == issuer)

    async def _move_scopes(self, conn: Connection) -> None:
        """The CRLs whose IDP must name the new URL too are demanded at once (B15)."""
        moved = []
        async with conn.transaction():
            for state in await crls.states(conn, offline=True):
                url = f"{self._config.crl_base}/{state.scope.path}"
                if url != state.scope.url:
                    await crls.move(conn, state.scope, url)
                    moved.append(state.scope)
            demanded = [scope for scope in moved if scope.idp]
            if demanded:
                await crl_demands.add(conn, demanded, actor=ACTOR, at=self._now())
        if moved:
            self._say(f"new certificates name their CRLs at {self._config.crl_base}")

    async def _has_crl(self, issuer: Issuer) -> bool:
        async with acquire(self._pool) as conn:
            states = await crls.states(conn, offline=True)
        return any(state.published for state in states if state.scope.issuer_id == issuer.id)

    async def _make_root(self, wanted: configuration.Issuer) -> Issuer:
        spki = self._files.ensure("offline", wanted.name, wanted.key)
        async with acquire(self._pool) as conn:
            await check_ca_key(conn, self._config.checks, spki, issuer=None, ask=False)  # made just now
        now, subject, algorithm = self._now(), _subject(wanted), algorithm_for_spki(spki)
        frame = Frame(new_serial(), algorithm, subject, now, now + wanted.days * DAY - 1, subject, spki)
        tbs = ca_profiles.root(frame)
        async with acquire(self._pool) as conn:
            await lint_before_signing(conn, self._config.lint, frame, tbs, "root", at=now)
        key = self._files.open("offline", self._files.ref("offline", wanted.name))
        try:
            der = write_certificate(tbs, algorithm, key.sign(tbs))
        finally:
            key.close()
        async with acquire(self._pool) as conn, conn.transaction():
            issuer = await self._add_issuer(conn, wanted, None, None, der)
            await signing_log.add_certificate(
                conn,
                at=now,
                kind="certificate",
                issuer_id=issuer.id,
                serial=frame.serial,
                tbs_sha256=hashlib.sha256(tbs).digest(),
                der=der,
            )
        return issuer

    async def make_sub_ca(self, wanted: configuration.Issuer) -> Issuer:
        parent, own, scope = await self._parent(wanted)
        spki = self._files.ensure("ca", wanted.name, wanted.key)
        shape = sub_ca_shape(self._config, parent, own, scope, wanted)
        certificate = Wanted(
            issuer=parent,
            profile=wanted.profile_name,
            subject=_subject(wanted),
            spki=spki,
            not_after=min(self._now() + wanted.days * DAY - 1, own.not_after),
            build=partial(ca_profiles.sub_ca, shape=shape),
        )

        async def finish(conn: Connection, der: bytes) -> Issuer:
            return await self._add_issuer(conn, wanted, parent, self._files.ref("ca", wanted.name), der)

        return await self._ceremony.issue(certificate, finish)

    async def _parent(self, wanted: configuration.Issuer) -> tuple[Issuer, issuers.IssuerCertificate, crls.Scope]:
        async with acquire(self._pool) as conn:
            return await read_parent(conn, wanted.parent or "")

    async def _add_issuer(
        self, conn: Connection, wanted: configuration.Issuer, parent: Issuer | None, key_ref: str | None, der: bytes
    ) -> Issuer:
        """The issuer's rows, in the caller's transaction: from its commit on, every other process knows it."""
        fields, now = read_certificate(der), self._now()
        issuer = await issuers.add(
            conn,
            name=wanted.name,
            kind=wanted.kind,
            parent=parent.id if parent else None,
            subject=fields.subject,
            spki=fields.spki,
            signature_algorithm=algorithm_for_spki(fields.spki).name,
            key_ref=key_ref,
            ocsp_path=wanted.name,
            max_age=wanted.max_age,
            bucket_count=self._config.presign.buckets,
            shard_count=wanted.shards,
            profiles=self._profiles(wanted.name),
            created_at=now,
        )
        await issuers.add_certificate(conn, issuer.id, der, fields.not_before, fields.not_after)
        await add_scopes(conn, issuer, self._config.crl_base)
        await buckets.add(conn, issuer.id, issuer.bucket_count, now)
        await outbox.add_issuer(conn, issuer.id)
        await acts.record(conn, at=now, actor=ACTOR, action="issuer.added", subject={"issuer": issuer.name})
        return issuer


async def add_scopes(conn: Connection, issuer: Issuer, crl_base: str, shards: int | None = None) -> None:
    """The CRL scopes that an issuer with so many shards lacks (None: as its row says): one for certificates without a
    shard, and one for each shard.

    Without shards, the one is the full CRL and has no IDP (B14, G5). With shards it lists only what no shard does, such
    as OCSP signers, and says so with an IDP of its own: without one it would claim to be complete.
    """
    path = f"{issuer.name}.crl"
    count = issuer.shard_count if shards is None else shards
    sharded = count > 0
    await crls.add_scope(
        conn, issuer_id=issuer.id, scope="full", shard=None, url=f"{crl_base}/{path}", path=path, idp=sharded
    )
    for shard in range(count):
        path = f"{issuer.name}/{shard}.crl"
        await crls.add_scope(
            conn, issuer_id=issuer.id, scope=str(shard), shard=shard, url=f"{crl_base}/{path}", path=path, idp=True
        )


async def read_parent(conn: Connection, name: str) -> tuple[Issuer, issuers.IssuerCertificate, crls.Scope]:
    """A CA that others may stand below, its certificate, and the CRL that lists them. Raises `hierarchy.parent`."""
    parent = await issuers.find_by_name(conn, name)
    own = await issuers.certificate(conn, parent.id) if parent else None
    scope = await crls.find_scope(conn, parent.id, None) if parent else None
    if parent is None or own is None or scope is None or parent.taken_over:
        raise QuashError("hierarchy.parent", f"{name} is no CA of this hierarchy that others may stand below")
    return parent, own, scope


def sub_ca_shape(
    config: Config,
    parent: Issuer,
    own: issuers.IssuerCertificate,
    scope: crls.Scope,
    wanted: configuration.Issuer,
) -> SubCa:
    """What `wanted` is, and its parent's services (G45)."""
    permitted = wanted.permitted
    directory = tuple(build_name(dict(each.items())) for each in permitted.directory)
    return SubCa(
        purpose=oids.PURPOSES[config.kinds[wanted.profile_name].purposes[0]],
        policies=tuple(policies.OIDS[name] for name in wanted.policy),
        path_length=wanted.path_length,
        constraints=NameConstraints(permitted.dns, permitted.email, directory) if permitted.kinds else None,
        parent_key_id=authority_of(parent, own.der).key_id,
        crl_url=scope.url,
        ocsp_url=f"{config.ocsp_base}/{parent.ocsp_path}",
        ca_issuers_url=f"{config.crl_base}/{parent.name}.cer",
    )


def _subject(wanted: configuration.Issuer) -> bytes:
    return build_name(dict(wanted.subject.items()))


def _parents_first(wanted: Sequence[configuration.Issuer]) -> list[configuration.Issuer]:
    """Roots, then what stands below them; the configuration has checked that each has a root above it."""
    parents = {issuer.name: issuer.parent for issuer in wanted}

    def depth(name: str | None) -> int:
        return 0 if name is None else 1 + depth(parents[name])

    return sorted(wanted, key=lambda issuer: depth(issuer.parent))
