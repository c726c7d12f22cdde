"""The admin API's routes for keys: blocked ones, and proofs of compromise."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Annotated, Any, Literal, Self

from aiohttp import web
from pydantic import AwareDatetime, Field, Strict, StringConstraints, model_validator

from issuer.api import answer, read, read_query, require, timestamp
from issuer.revocation import approvals, evidence, intake
from issuer.revocation.assertions import BLOCK
from issuer.revocation.blocklists import IMPORT
from issuer.revocation.compromise import Compromised
from issuer.revocation.find import Target, find_one, read_pem
from issuer.revocation.officer_api import accepted
from issuer.revocation.routes import EVERYONE, MAY_REVOKE, Body, Routes, Text
from issuer.revocation.search_api import HashPageQuery
from quash.errors import Kind, QuashError
from quash.pki.certificate import read_certificate
from quash.pki.serials import parse_serial
from quash.runtime.clock import Clock
from quash.runtime.config import Config
from quash.store import acts, blocked_keys, key_evidence
from quash.store.blocked_keys import BlockedKey
from quash.store.database import Connection, Pool, acquire
from quash.store.key_evidence import Evidence

_PAGE = 1000
_VERIFY_SECONDS = 5.0  # an honest proof takes milliseconds
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Document = Annotated[str, StringConstraints(min_length=1, max_length=evidence.MAX_OCTETS)]


class BlockBody(Body):
    """A key that an officer says is bad: by `spki_sha256`, or by a certificate that has it (PEM, expired or not)."""

    spki_sha256: Digest | None = None
    certificate: Document | None = None
    why: Text

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.spki_sha256 is None) == (self.certificate is None):
            raise ValueError("give spki_sha256 or certificate, and only one of them")
        return self


class ImportBody(Body):
    """A list that lies elsewhere, by its hash: it is taken over there once this is approved."""

    kind: Literal["spki", "badkeys"]
    source: Text
    sha256: Digest
    entries: Annotated[int, Field(ge=1)]


class NoteBody(Body):
    note: Text


class CompromiseBody(Body):
    """One proof: `private_key` (PEM), `csr` (PEM, common name: a challenge) or `jws` (flattened, over a challenge).

    `serial` and `issuer`, or `certificate` (PEM), name a certificate whose key it must be; a JWS needs one.
    `revoked_at`: since when the key is in wrong hands (B26).
    """

    private_key: Document | None = None
    csr: Document | None = None
    jws: dict[str, Document] | None = None
    issuer: str | None = None
    serial: str | None = None
    certificate: Document | None = None
    revoked_at: Annotated[AwareDatetime, Strict(False)] | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if sum(each is not None for each in (self.private_key, self.csr, self.jws)) != 1:
            raise ValueError("give private_key, csr or jws, and only one of them")
        if self.serial is not None and self.certificate is not None:
            raise ValueError("give serial or certificate, and only one of them")
        return self


class KeyApi(Routes):
    """The handlers."""

    def __init__(self, pool: Pool, config: Config, clock: Clock) -> None:
        super().__init__(pool, clock)
        self._batch = config.admin.sibling_batch

    def add_routes(self, app: web.Application) -> None:
        key = "{spki_sha256:[0-9a-f]{64}}"
        app.add_routes(
            [
                web.get("/v1/blocked-keys", self.list_keys),
                web.post("/v1/blocked-keys", self.block),
                web.post("/v1/blocked-keys/imports", self.propose_import),
                web.get(f"/v1/blocked-keys/{key}", self.get_key),
                web.post(f"/v1/blocked-keys/{key}/notes", self.annotate),
                web.post("/v1/key-compromises/challenges", self.give_challenge),
                web.post("/v1/key-compromises", self.post_compromise),
            ]
        )

    async def list_keys(self, request: web.Request) -> web.Response:
        """In the order of their hashes."""
        require(request, *EVERYONE)
        after = bytes.fromhex(read_query(request, HashPageQuery).after)
        async with acquire(self._pool) as conn:
            page = await blocked_keys.page(conn, after, _PAGE)
        following = page[-1].spki_sha256.hex() if len(page) == _PAGE else None
        return answer({"blocked_keys": [_key(each) for each in page], "after": following})

    async def get_key(self, request: web.Request) -> web.Response:
        require(request, *EVERYONE)
        key = bytes.fromhex(request.match_info["spki_sha256"])
        async with acquire(self._pool) as conn:
            blocked = await _blocked(conn, key)
            notes = await blocked_keys.notes(conn, key)
            proofs = await key_evidence.of_key(conn, key)
        return answer(
            {
                **_key(blocked),
                "notes": [{"at": timestamp(at), "by": actor, "note": note} for at, actor, note in notes],
                "proofs": [
                    {"at": timestamp(at), "kind": each.kind, "sha256": each.sha256.hex()} for at, each in proofs
                ],
            }
        )

    async def block(self, request: web.Request) -> web.Response:
        """Without a proof: a second officer approves."""
        operator = require(request, "officer")
        body = await read(request, BlockBody)
        if body.certificate is not None:
            key = hashlib.sha256(read_pem(body.certificate)[1].spki).hexdigest()
        else:
            key = body.spki_sha256 or ""
        async with acquire(self._pool) as conn:
            reach = await intake.reach_of(conn, bytes.fromhex(key), self._now)
            payload = {"spki_sha256": key, "why": body.why, "certificates": reach.issuers}
            return accepted(await approvals.propose(conn, operator, BLOCK, payload, self._now))

    async def propose_import(self, request: web.Request) -> web.Response:
        operator = require(request, "officer")
        body = await read(request, ImportBody)
        async with acquire(self._pool) as conn:
            return accepted(await approvals.propose(conn, operator, IMPORT, body.model_dump(), self._now))

    async def annotate(self, request: web.Request) -> web.Response:
        """Adds to what is known of a blocked key: nothing takes it off the list (C9)."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, NoteBody)
        key, now = bytes.fromhex(request.match_info["spki_sha256"]), self._now
        async with acquire(self._pool) as conn:
            await _blocked(conn, key)
            async with conn.transaction():
                subject = {"spki_sha256": key.hex(), "note": body.note}
                act_id = await acts.record(conn, at=now, actor=operator.actor, action="key.note", subject=subject)
                await blocked_keys.add_note(conn, key, at=now, note=body.note, act_id=act_id)
        return answer({"act_id": act_id}, status=201)

    async def give_challenge(self, request: web.Request) -> web.Response:
        operator = require(request, *MAY_REVOKE)
        async with acquire(self._pool) as conn:
            challenge, expires_at = await intake.give_challenge(conn, operator.actor, self._now)
        return answer({"challenge": challenge, "expires_at": timestamp(expires_at)}, status=201)

    async def post_compromise(self, request: web.Request) -> web.Response:
        """With a proof nobody else need agree: every certificate of the key is revoked at once."""
        operator = require(request, *MAY_REVOKE)
        body = await read(request, CompromiseBody)
        since = None if body.revoked_at is None else int(body.revoked_at.timestamp())
        async with acquire(self._pool) as conn:
            spki = await self._named(conn, body)
            proof = await _verified(body, spki)
            if spki is not None and hashlib.sha256(proof.spki).digest() != spki[0]:
                raise QuashError("evidence.key_mismatch", "the proof is by another key than the certificate's")
            reach, done = await intake.accept(
                conn,
                self._clock,
                proof,
                actor=operator.actor,
                revoked_at=since,
                batch=self._batch,
                dry_run=body.dry_run,
            )
        changed = done is not None and done.act_id is not None
        return answer(_compromise(proof, reach, done), status=201 if changed else 200)

    async def _named(self, conn: Connection, body: CompromiseBody) -> tuple[bytes, bytes | None] | None:
        """(SHA-256 of the SPKI, the SPKI where we have it) of the certificate that the body names."""
        if body.serial is None and body.certificate is None:
            return None
        if body.certificate is not None and body.issuer is None:
            spki = read_pem(body.certificate)[1].spki
            return hashlib.sha256(spki).digest(), spki
        serial = None if body.serial is None else parse_serial(body.serial)
        found = (await find_one(conn, Target(body.issuer, serial, body.certificate))).certificate
        if found.spki_sha256 is None:
            raise QuashError("evidence.key_unknown", "nobody knows this certificate's key: show it", Kind.REFUSED)
        return found.spki_sha256, None if found.der is None else _spki_of(found.der)


async def _verified(body: CompromiseBody, named: tuple[bytes, bytes | None] | None) -> Evidence:
    """In a thread and for a limited time: numbers that somebody chose may take long."""
    if body.private_key is not None:
        work = partial(evidence.from_private_key, body.private_key)
    elif body.csr is not None:
        work = partial(evidence.from_csr, body.csr)
    else:
        if named is None or named[1] is None:
            raise QuashError("evidence.no_certificate", "a JWS needs the certificate that it is about: show it")
        work = partial(evidence.from_jws, body.jws or {}, named[1])
    try:
        async with asyncio.timeout(_VERIFY_SECONDS):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise QuashError("evidence.too_slow", "this proof takes too long to verify", Kind.REFUSED) from None


def _spki_of(der: bytes) -> bytes:
    return read_certificate(der).spki


async def _blocked(conn: Connection, key: bytes) -> BlockedKey:
    found = await blocked_keys.get(conn, key)
    if found is None:
        raise QuashError("key.not_blocked", "this key is not blocked", Kind.NOT_FOUND)
    return found


def _key(blocked: BlockedKey) -> dict[str, Any]:
    return {
        "spki_sha256": blocked.spki_sha256.hex(),
        "reason": blocked.reason,
        "added_at": timestamp(blocked.added_at),
        "act_id": blocked.act_id,
    }


def _compromise(proof: Evidence, reach: intake.Reach, done: Compromised | None) -> dict[str, Any]:
    return {
        "spki_sha256": hashlib.sha256(proof.spki).hexdigest(),
        "kind": proof.kind,
        "certificates": reach.certificates,
        "issuers": reach.issuers,
        "accounts": reach.accounts,
        "scopes": reach.scopes,
        "signing_seconds": reach.seconds,
        "changed": done is not None and done.act_id is not None,
        "revoked": done.revoked if done else 0,
        "to_revoke": done.total if done else reach.certificates,
        "act_id": done.act_id if done else None,
    }
