"""Taking over a CA: the recipe. From here on its OCSP answers and CRLs are ours.

 1. plan         everything is read and checked (`import_plan`); nothing is written before
 2. key          opens, belongs to the CA certificate, and is kept among the CA keys
 3. issuer       its row and certificate
 4. rows         certificates with their revocations, in idempotent batches
 5. keys         compromised ones are blocked; siblings of whatever issuer become jobs (C8, C9)
 6. signer       the CA issues its OCSP signer (A13)
 7. visible      last of all, in one transaction: CRL scope, old CRL number, refresh buckets, news

So no CRL and no answer is ever made from half an import, and a run that was stopped goes on when it is run again.
Running it twice changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from issuer.signer.ceremony import Ceremony
from issuer.signer.deployment import Deployment
from issuer.signer.hierarchy import add_scopes
from issuer.signer.import_plan import OldCrl, Plan, Progress, Source
from issuer.signer.key_files import ceremony_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.ocsp_signer import ensure_ocsp_signer
from issuer.signer.publish_files import publish_certificates
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.keys import KeyKind, shares_token
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.reasons import Reason
from quash.runtime.config import OcspSigner
from quash.store import acts, blocked_keys, buckets, crl_demands, crls, imports, issuers, jobs, outbox, revocations
from quash.store.certificates import bucket_of_foreign
from quash.store.database import Connection, acquire
from quash.store.imports import ImportRow
from quash.store.issuers import Issuer
from quash.store.locks import spki_lock

ACTOR = "command:import"
_BATCH = 2000  # rows a transaction: well below 200 ms
_MAX_AGE = 1800  # seconds that caches keep an answer (A36)


@dataclass(frozen=True, slots=True)
class KeySource:
    """The CA's key: a PEM `body` with its `passphrase`, or the `uri` of a key on a token (RFC 7512)."""

    body: bytes | None = None
    passphrase: bytes | None = None
    uri: str | None = None


@dataclass(slots=True)
class Summary:
    """What an import found and did; the field names are the command line's JSON."""

    issuer: str
    certificates: int = 0
    revoked: int = 0
    new_certificates: int = 0
    new_revocations: int = 0
    without_known_key: int = 0
    compromised_keys: int = 0
    siblings_to_revoke: int = 0
    skipped_lines: int = 0
    ocsp_url: str = ""
    crl_url: str = ""
    warnings: list[str] = field(default_factory=list)
    bad_lines: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return asdict(self)


class Import:
    """One run of the recipe."""

    def __init__(self, deployment: Deployment, source: Source, plan: Plan, progress: Progress) -> None:
        self._deployment = deployment
        self._source = source
        self._plan = plan
        self._progress = progress
        self._ca = read_certificate(source.ca.public_bytes(Encoding.DER))
        self._summary = Summary(
            issuer=source.name,
            certificates=len(plan.rows),
            revoked=sum(row.reason is not None for row in plan.rows),
            skipped_lines=plan.skipped,
            ocsp_url=f"{deployment.config.ocsp_base}/{source.name}",
            crl_url=f"{deployment.config.crl_base}/{source.name}.crl",
            warnings=list(plan.warnings),
            bad_lines=[f"line {bad.line}: {bad.text}" for bad in plan.bad],
        )

    async def run(self, key: KeySource) -> Summary:
        """Steps 2 to 7. Raises `import.*`, `key.*`, `KeyUnavailable`; the next run goes on from what was written."""
        check_ca(self._source.ca, self._deployment.now())
        check_algorithm(self._source, self._ca.spki)  # before anything is written
        async with acquire(self._deployment.pool) as conn:
            known = await self._known_issuer(conn)
            key_ref = self._keep_key(key)
            issuer = known or await self._add_issuer(conn, key_ref)
            visible = await crls.find_scope(conn, issuer.id, None) is not None
            act_id = await self._add_rows(conn, issuer, visible=visible)
            await self._block_keys(conn, issuer, act_id)
        await self._ensure_signer(issuer)
        async with acquire(self._deployment.pool) as conn:
            if not visible:
                await self._make_visible(conn, issuer)
            elif self._plan.crl is not None:
                await self._rise_above(conn, issuer, self._plan.crl)
            await publish_certificates(conn, self._deployment.state)
            self._summary.without_known_key = await imports.without_key(conn, issuer.id, self._deployment.now())
        return self._summary

    async def _known_issuer(self, conn: Connection) -> Issuer | None:
        """The issuer of an earlier run. Raises when its name, or its name and key, are somebody else's."""
        for issuer in await issuers.all_issuers(conn):
            same = (issuer.subject, issuer.spki) == (self._ca.subject, self._ca.spki)
            if same and issuer.name == self._source.name:
                self._check_kind(issuer)
                return issuer
            if same:
                raise QuashError("import.known", f"this CA is served already, as {issuer.name}", Kind.CONFLICT)
            if issuer.name == self._source.name:
                raise QuashError(
                    "import.name_taken", f"{issuer.name} is another issuer; choose another --name", Kind.CONFLICT
                )
        return None

    def _check_kind(self, known: Issuer) -> None:
        if known.kind != self._source.kind:
            said = "with" if known.kind == "private" else "without"
            raise QuashError("import.kind", f"{known.name} was imported {said} --private: it stays so", Kind.CONFLICT)

    def _keep_key(self, key: KeySource) -> str:
        """The reference of the CA's key, which was opened once. Raises `key.*`, `KeyUnavailable`."""
        files = self._deployment.files
        if key.uri is None:
            return files.adopt("ca", self._source.name, self._ca.spki, key.body or b"", key.passphrase)
        if shares_token(key.uri, self._deployment.config.keys.ocsp_token or ""):
            raise QuashError("key.shared_token", "the CA's key is on the token of the OCSP keys; it needs its own")
        handle = files.open("ca", key.uri)
        handle.close()
        if handle.spki != self._ca.spki:
            raise QuashError("key.mismatch", "the key does not belong to the certificate; give the other's")
        return key.uri

    async def _add_issuer(self, conn: Connection, key_ref: str) -> Issuer:
        config, now = self._deployment.config, self._deployment.now()
        async with conn.transaction():
            issuer = await issuers.add(
                conn,
                name=self._source.name,
                kind=self._source.kind,
                parent=None,
                subject=self._ca.subject,
                spki=self._ca.spki,
                signature_algorithm=algorithm_for_spki(self._ca.spki).name,
                key_ref=key_ref,
                ocsp_path=self._source.name,
                max_age=_MAX_AGE,
                bucket_count=config.presign.buckets,
                shard_count=0,
                profiles=(),
                created_at=now,
            )
            der = self._source.ca.public_bytes(Encoding.DER)
            await issuers.add_certificate(conn, issuer.id, der, self._ca.not_before, self._ca.not_after)
        return issuer

    async def _add_rows(self, conn: Connection, issuer: Issuer, *, visible: bool) -> int:
        """Step 4; a new issuer's first answers come with its buckets, a known one's changes are news. The act's id."""
        now, rows = self._deployment.now(), self._plan.rows
        act_id = await acts.record(conn, at=now, actor=ACTOR, action="issuer.import", subject=self._subject())
        for start in range(0, len(rows), _BATCH):
            batch = [_with_bucket(row, issuer) for row in rows[start : start + _BATCH]]
            async with conn.transaction():
                result = await imports.add_batch(conn, issuer.id, batch, act_id=act_id, now=now)
                if visible:
                    await outbox.add_certificates(conn, [(issuer.id, s) for s in result.revocations])
                    rest = set(result.certificates) - set(result.revocations)
                    await outbox.add_certificates(conn, [(issuer.id, s) for s in sorted(rest)], lane=outbox.BULK)
            self._summary.new_certificates += len(result.certificates)
            self._summary.new_revocations += len(result.revocations)
            self._progress("importing", min(start + _BATCH, len(rows)), len(rows))
        return act_id

    def _subject(self) -> dict[str, Any]:
        return {
            "issuer": self._source.name,
            "certificates": self._summary.certificates,
            "revoked": self._summary.revoked,
            "skipped_lines": self._summary.skipped_lines,
        }

    async def _block_keys(self, conn: Connection, issuer: Issuer, act_id: int) -> None:
        """Step 5, key by key under its lock, as every block of a key (`quash.store.locks`)."""
        now = self._deployment.now()
        for spki_sha256, revoked_at in await imports.compromised_keys(conn, issuer.id):
            async with spki_lock(conn, spki_sha256), conn.transaction():
                await blocked_keys.block(conn, spki_sha256, reason="keyCompromise", added_at=now, act_id=act_id)
                siblings = await revocations.count_unsettled(conn, spki_sha256, unexpired_at=now, revoked_at=revoked_at)
                if siblings:
                    await jobs.add(
                        conn,
                        spki_sha256=spki_sha256,
                        reason=Reason.keyCompromise,
                        revoked_at=revoked_at,
                        total=siblings,
                        done=0,
                        act_id=act_id,
                        created_at=now,
                    )
            self._summary.compromised_keys += 1
            self._summary.siblings_to_revoke += siblings

    async def _ensure_signer(self, issuer: Issuer) -> None:
        deployment, wanted = self._deployment, OcspSigner()
        kind: KeyKind = "ed25519" if issuer.signature_algorithm == "ed25519" else wanted.key
        keys = KeyRing(ceremony_opener(deployment.files))
        try:
            ceremony = Ceremony(deployment, CaSigner(deployment.pool, keys, deployment.clock))
            await ensure_ocsp_signer(ceremony, deployment.files, issuer, kind, wanted.days)
        finally:
            await keys.close()

    async def _make_visible(self, conn: Connection, issuer: Issuer) -> None:
        """Step 7."""
        old = self._plan.crl
        async with conn.transaction():
            await add_scopes(conn, issuer, self._deployment.config.crl_base)
            if old is not None:
                await _start_after(conn, issuer, old)
            await buckets.add(conn, issuer.id, issuer.bucket_count, self._deployment.now())
            await outbox.add_issuer(conn, issuer.id)

    async def _rise_above(self, conn: Connection, issuer: Issuer, old: OldCrl) -> None:
        """The old CRL was forgotten before, or the CA made one more: who has it takes ours for older (B7)."""
        states = await crls.states(conn, offline=True)
        state = next(each for each in states if (each.scope.issuer_id, each.scope.shard) == (issuer.id, None))
        number, this_update = (state.newest.number, state.newest.this_update) if state.newest else (-1, -1)
        if number < old.number or this_update < old.this_update:
            async with conn.transaction():
                number = max(old.number, number + 1)
                await _start_after(conn, issuer, replace(old, number=number))
                await crl_demands.add(conn, [state.scope], actor=ACTOR, at=self._deployment.now())


async def _start_after(conn: Connection, issuer: Issuer, old: OldCrl) -> None:
    await crls.start_after(
        conn, issuer.id, "full", number=old.number, this_update=old.this_update, next_update=old.next_update
    )


def _with_bucket(row: ImportRow, issuer: Issuer) -> ImportRow:
    return replace(row, bucket=bucket_of_foreign(row.serial, issuer.bucket_count))


def check_algorithm(source: Source, spki: bytes) -> None:
    """Whether we may sign with the CA's key (A18). Raises `key.type_not_allowed`, `key.algorithm_not_supported`."""
    if algorithm_for_spki(spki).name == "ed25519" and not source.private:
        raise QuashError(
            "key.algorithm_not_supported",
            "the key is neither RSA nor ECDSA (D40); a CA of a private PKI may have Ed25519: give --private",
        )


def check_ca(ca: x509.Certificate, now: int) -> None:
    """Whether a certificate can be the CA of an import. Raises `import.not_a_ca`, `import.ca_expired`."""
    try:
        is_ca = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = ca.version is x509.Version.v1 and ca.subject == ca.issuer
    except ValueError:
        is_ca = False
    if not is_ca:
        raise QuashError("import.not_a_ca", "--ca is not the certificate of a CA (basicConstraints)")
    if ca.not_valid_after_utc.timestamp() <= now:
        raise QuashError("import.ca_expired", "--ca has expired: nobody accepts its answers", Kind.REFUSED)
