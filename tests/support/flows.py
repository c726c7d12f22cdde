"""All five flows of one deployment in one process, on a clock that tests move: every component is the real one.

What comes out is looked at from outside only: OCSP by octets through the responder's answer, CRLs as published files,
both read and verified by pyca alone.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from crlgen.build.builder import CrlBuilder
from crlgen.publish.folder import FolderPublisher
from issuer.checks.lint import no_linting
from issuer.issuance.issue import Issuance
from issuer.revocation.find import Target
from issuer.revocation.jobs import JobRunner
from issuer.revocation.revoke import Request as Revocation
from issuer.revocation.revoke import Revoked, revoke
from issuer.signer.hierarchy import make_hierarchy
from issuer.signer.key_files import KeyFiles, online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.rotation import Rotation
from issuer.signer.service import CaSigner
from quash.cache.environment import Environment
from quash.cache.reader import LmdbReader
from quash.cache.writer import LmdbWriter
from quash.keys import KeyHandle, KeyUnavailable
from quash.pki.reasons import Reason
from quash.runtime.clock import Clock, FakeClock
from quash.runtime.config import Config, Ct
from quash.runtime.log import logger
from quash.runtime.process import Health
from quash.runtime.state import State
from quash.store import certificates
from quash.store.database import Connection, Pool, acquire
from quash.store.issuers import Issuer
from quash.store.orders import Order
from quash.store.roles import ADMIN, CA_SIGNER, CRL_BUILDER, FOLLOWER, ISSUING, JOBS, PRESIGNER
from responder.follow.follower import Follower
from responder.presign.key_places import maker
from responder.presign.presigner import Presigner
from responder.serve.answer import Request
from responder.serve.worker import Worker
from tests.support.issuing import OV_SUBJECT, PrivateKey, key_rules, make_csr
from tests.support.postgres import Database

HOUR, DAY = 3600, 86_400
ACTOR = "operator:test"
DIGESTS = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}
Key = tuple[str, bytes]
"""A certificate by its issuer's name and its serial, the content octets of the DER INTEGER."""

_CRL_PAUSE = 1.3  # seconds after which no CRL waits any more: for the rest of its burst, or after the one before it
_REASONS = {reason.name: reason for reason in Reason}


@dataclass(frozen=True)
class Said:
    """What a relying party reads in an answer. `word`: good, revoked or the name of the OCSP error; times in seconds.

    `signer`: the serial of the OCSP signer's certificate.
    """

    word: str
    reason: int | None = None
    revoked_at: int = 0
    this_update: int = 0
    next_update: int = 0
    signer: int = 0

    @property
    def entry(self) -> tuple[int, int]:
        """As a CRL has it: (revocation date, reason)."""
        assert self.word == "revoked"
        return self.revoked_at, self.reason or 0


@dataclass(frozen=True)
class Crl:
    """A published CRL that verified. `entries`: serial as a number -> (revocation date, reason)."""

    issuer: x509.Name
    number: int
    this_update: int
    next_update: int
    url: str | None
    body: bytes
    entries: dict[int, tuple[int, int]]


def seconds(moment: dt.datetime) -> int:
    return int(moment.timestamp())


def serial_of(certificate: x509.Certificate) -> bytes:
    number = certificate.serial_number
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def ocsp_request(issuer: x509.Certificate, serial: bytes, digest: str) -> bytes:
    """pyca's request for a serial, whether there is a certificate or not."""
    key = issuer.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        bits = key.public_bytes_raw()
    elif isinstance(key, ec.EllipticCurvePublicKey):
        bits = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        bits = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    name_hash, key_hash = (hashlib.new(digest, data).digest() for data in (issuer.subject.public_bytes(), bits))
    number = int.from_bytes(serial, "big")
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name_hash, key_hash, number, DIGESTS[digest])
    return builder.build().public_bytes(Encoding.DER)


def read_answer(body: bytes, request: bytes, issuer: x509.Certificate, now: float) -> Said:
    """Verifies an answer as RFC 6960 3.2 tells a relying party to; nothing past its nextUpdate passes."""
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return Said(response.response_status.name.lower())
    asked = ocsp.load_der_ocsp_request(request)
    for part in ("serial_number", "issuer_name_hash", "issuer_key_hash"):
        assert getattr(response, part) == getattr(asked, part)
    assert response.hash_algorithm.name == asked.hash_algorithm.name
    (signer,) = response.certificates
    signer.verify_directly_issued_by(issuer)
    usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    _verify_signature(response, signer)
    assert response.next_update_utc is not None
    this_update, next_update = seconds(response.this_update_utc), seconds(response.next_update_utc)
    assert now < next_update <= seconds(signer.not_valid_after_utc)  # A5
    word, revoked_at = response.certificate_status.name.lower(), response.revocation_time_utc
    reason = response.revocation_reason
    return Said(
        word,
        None if word == "good" else Reason.unspecified if reason is None else _REASONS[reason.value],
        0 if revoked_at is None else seconds(revoked_at),
        this_update,
        next_update,
        signer.serial_number,
    )


def _verify_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key = signer.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(response.signature, response.tbs_response_bytes)
        return
    digest = response.signature_hash_algorithm
    assert digest is not None
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), digest)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(digest))


@lru_cache(maxsize=1000)
def read_crl(body: bytes, issuer: x509.Certificate) -> Crl:
    """Verifies a CRL under its issuer and reads it; the same octets are judged once."""
    crl = x509.load_der_x509_crl(body)
    assert crl.issuer == issuer.subject
    assert crl.is_signature_valid(issuer.public_key())
    assert crl.next_update_utc is not None
    points = [each.value for each in crl.extensions if isinstance(each.value, x509.IssuingDistributionPoint)]
    url = points[0].full_name[0].value if points else None
    return Crl(
        crl.issuer,
        crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
        seconds(crl.last_update_utc),
        seconds(crl.next_update_utc),
        url,
        body,
        {each.serial_number: (seconds(each.revocation_date_utc), _reason(each)) for each in crl},
    )


def _issuer_of(path: str) -> str:
    """The demo's paths: `<issuer>.crl` and `<issuer>/<shard>.crl`."""
    return path.partition("/")[0].removesuffix(".crl")


def _reason(entry: x509.RevokedCertificate) -> int:
    """B10: absent means unspecified."""
    found = [each.value.reason for each in entry.extensions if isinstance(each.value, x509.CRLReason)]
    return _REASONS[found[0].value] if found else Reason.unspecified


class Node:
    """A machine that answers: a follower, its cache file and one worker. A relying party asks it by `ask`.

    `taken_up`: how many rows of the feed its follower has read, those that came again too.
    """

    def __init__(self, site: Site, pool: Pool, folder: Path) -> None:
        self._site = site
        self._pool = pool
        self._folder = folder
        self.taken_up = 0
        self.start()

    def start(self) -> None:
        """Starts with the cache as it lies in the folder, empty or not."""
        clock = self._site.clock
        self._writer = LmdbWriter(self._folder, map_size=1 << 28)
        self._follower = Follower(self._pool, self._writer, clock, logger(), database_time=self._site.database_time)
        reader = LmdbReader(shared=self._writer)
        self.health = Health()
        self._worker = Worker(reader, clock, self._site.config, self.health, logger())

    def stop(self) -> None:
        """The machine is off; its cache stays."""
        self._writer.close()

    @property
    def rebuilt(self) -> str:
        """Why the cache was begun anew at the start; "": it was not."""
        return self._writer.rebuilt

    @property
    def environment(self) -> Environment:
        """The open cache file, for tests that look into it or spoil it."""
        return self._writer.environment

    async def step(self) -> None:
        """Applies what the feed has; the worker notices, also when the follower cannot go on."""
        try:
            self.taken_up += await self._follower.step()
        finally:
            self._worker.refresh()

    def ask(self, key: Key) -> Said:
        """The one answer that both CertID hashes get (A20): SHA-1 by GET at the issuer's path, SHA-256 by POST."""
        issuer, serial = key
        sha1, sha256 = (ocsp_request(self._site.issuer(issuer), serial, digest) for digest in DIGESTS)
        path = f"/{issuer}/{urllib.parse.quote(base64.b64encode(sha1).decode(), safe='')}"
        asked = ((sha1, Request("GET", path.encode())), (sha256, Request("POST", b"/", sha256)))
        first, second = (
            read_answer(self._body(http), request, self._site.issuer(issuer), self._site.clock.now())
            for request, http in asked
        )
        assert first == second
        return first

    def _body(self, request: Request) -> bytes:
        answer = self._worker.answer(request)
        assert answer.status == 200
        return answer.body


class _MovableKey:
    """A key that can be taken away."""

    def __init__(self, key: KeyHandle, ref: str, away: set[str]) -> None:
        self.spki, self.algorithm, self.quick = key.spki, key.algorithm, key.quick
        self.sign, self.check, self.close = key.sign, key.check, key.close
        self._key, self._ref, self._away = key, ref, away

    def sign_many(self, many: Sequence[bytes]) -> list[bytes]:
        if self._ref in self._away:
            raise KeyUnavailable("the token was pulled out: put it back")
        return self._key.sign_many(many)


@dataclass
class Site:
    """One deployment with its components, each with the rights of its own role, and one node.

    `keys_away`: references of OCSP keys that cannot be used at the moment.
    """

    database: Database
    config: Config
    state: State
    clock: FakeClock
    keys_away: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    _presigners: list[Presigner] = field(default_factory=list)

    async def open(self) -> None:
        """Makes the hierarchy and starts everything."""
        await self.init()
        pool, files = self.database.pool, KeyFiles(self.config, self.state)
        self._keys = KeyRing(online_opener(files))
        ca_pool = await pool(CA_SIGNER)
        self.signer = CaSigner(ca_pool, self._keys, self.clock)
        self.rotation = Rotation(ca_pool, self.signer, self.config, self.clock)
        self._issuing, self.admin = await pool(ISSUING), await pool(ADMIN)
        self.issuance = self.new_issuance()
        self.jobs = JobRunner(await pool(JOBS), self.clock, batch=1)
        self.presigner = await self.new_presigner()
        self.node = await self.new_node()
        self.publisher = FolderPublisher(self.state.crl)
        self.builder = CrlBuilder(await pool(CRL_BUILDER), self.signer, self.publisher, self.clock, self.config)

    async def close(self) -> None:
        for node in self.nodes:
            node.stop()
        for presigner in self._presigners:
            await presigner.close()
        await self.builder.close()
        await self._keys.close()

    async def init(self) -> list[str]:
        """`quash init`, once more after the first time; returns what it made."""
        said: list[str] = []
        await make_hierarchy(self.config, self.state, self.database.owner, self.clock, said.append)
        self._issuers = {
            each.name: x509.load_pem_x509_certificate((self.state.certs / f"{each.name}.pem").read_bytes())
            for each in self.config.issuers
        }
        return said

    def new_issuance(self, passed: Callable[[str], Awaitable[None]] | None = None) -> Issuance:
        """The issuing use case as after a start; `passed` is told of its steps, and may raise to end it there."""
        more = {} if passed is None else {"passed": passed}
        sign = self.signer.sign_certificate
        return Issuance(
            pool=self._issuing,
            config=self.config.model_copy(update={"ct": Ct(required=False)}),
            clock=self.clock,
            sign=sign,
            answers=self,
            check_key=key_rules,
            linting=no_linting,
            **more,
        )

    async def new_presigner(
        self,
        clock: Clock | None = None,
        *,
        database_ahead: float = 0.0,
        through: Callable[[KeyHandle], KeyHandle] = lambda key: key,
    ) -> Presigner:
        """One more presigner; `database_ahead`: how far the database's clock is ahead as this presigner sees it.

        `through`: what stands between it and each of its keys.
        """
        files = KeyFiles(self.config, self.state)

        def open_key(ref: str) -> KeyHandle:
            return through(_MovableKey(files.open("ocsp", ref), ref, self.keys_away))

        async def database_time(_: Connection) -> float:
            return self.clock.now() + database_ahead

        made = Presigner(
            await self.database.pool(PRESIGNER),
            open_key,
            clock or self.clock,
            self.config.presign,
            self.state.crl,
            make_key=maker(self.config, self.state),
            database_time=database_time,
        )
        self._presigners.append(made)
        return made

    async def new_node(self) -> Node:
        """A node that starts now, with an empty cache."""
        folder = self.state.root / f"node-{len(self.nodes)}"
        folder.mkdir()
        self.nodes.append(Node(self, await self.database.pool(FOLLOWER), folder))
        return self.nodes[-1]

    @property
    def now(self) -> int:
        return int(self.clock.now())

    async def database_time(self, _: Connection) -> float:
        return self.clock.now()

    def issuer(self, name: str) -> x509.Certificate:
        return self._issuers[name]

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
        """`Answers`: whether the public is told good."""
        assert self.issuer(issuer.name).public_bytes(Encoding.DER) == issuer_certificate
        return self.node.ask((issuer.name, serial)).word == "good"

    async def spread(self) -> None:
        """What is committed reaches the node; no time passes."""
        await self.presigner.step()
        while self.presigner.unfinished:
            await self.presigner.step()
        await self.node.step()

    async def step(self, *, issuing: bool = True) -> None:
        """Every component once, in the order of the flows; without `issuing`, its process is down."""
        if issuing:
            await self.issuance.step()
        await self.jobs.step()
        await self.spread()
        if await self.rotation.step():
            await self.spread()
        await self.builder.step()
        # A CRL that is late may be so because a test held its builder up: by the end of `settle` it is out.
        problems = self.builder.problems
        assert all(said.startswith("crl.late") for said in problems.values()), problems

    async def settle(self, *, issuing: bool = True) -> None:
        """Until nothing is left to do for what is committed by now."""
        for _ in range(2):  # the second for news that the first one's jobs made, and for CRLs that waited
            await self.step(issuing=issuing)
            await self.clock.advance(_CRL_PAUSE)
        await self.step(issuing=issuing)
        assert self.builder.problems == {}, self.builder.problems

    async def order(self, profile: str, key: PrivateKey | None = None) -> Order:
        """An order that passed its checks."""
        csr = make_csr(key=key, subject=OV_SUBJECT if profile == "tls-ov" else ())
        return await self.issuance.submit(ACTOR, profile, csr)

    async def issue(self, profile: str = "tls-dv", key: PrivateKey | None = None) -> x509.Certificate:
        """Flow 1 from first to last: nothing is handed out before the public is told good (A7)."""
        order = await self.issuance.advance((await self.order(profile, key)).id)
        assert order.state == "ready"
        await self.spread()
        order = await self.issuance.advance(order.id)
        assert order.state == "issued"
        async with acquire(self._issuing) as conn:
            assert order.issuer_id is not None
            assert order.serial is not None
            row = await certificates.get(conn, order.issuer_id, order.serial)
        assert row is not None
        assert row.der is not None
        return x509.load_der_x509_certificate(row.der)

    def key(self, certificate: x509.Certificate) -> Key:
        name = next(name for name, each in self._issuers.items() if each.subject == certificate.issuer)
        return name, serial_of(certificate)

    async def revoke(
        self,
        key: Key,
        reason: Reason = Reason.superseded,
        *,
        revoked_at: int | None = None,
        conn: Connection | None = None,
    ) -> Revoked:
        """Flow 2's transaction, one sibling in it; inside of a transaction of `conn` it commits with that one."""
        request = Revocation(Target(*key), reason, revoked_at)
        if conn is not None:
            return await revoke(conn, self.clock, request, actor=ACTOR, batch=1)
        async with acquire(self.admin) as own:
            return await revoke(own, self.clock, request, actor=ACTOR, batch=1)

    def crl(self, path: str) -> Crl:
        """The published CRL of a path on the origin."""
        return read_crl((self.state.crl / path).read_bytes(), self.issuer(_issuer_of(path)))

    def crls(self) -> dict[str, Crl]:
        """All that is published, by path."""
        paths = sorted(str(path.relative_to(self.state.crl)) for path in self.state.crl.rglob("*.crl"))
        return {path: self.crl(path) for path in paths}

    def listed(self, key: Key) -> tuple[int, int] | None:
        """(revocation date, reason) of the one entry that the issuer's CRLs together have for a serial (B14)."""
        issuer, serial = key
        number = int.from_bytes(serial, "big")
        mine = [crl for path, crl in self.crls().items() if _issuer_of(path) == issuer]
        found = [crl.entries[number] for crl in mine if number in crl.entries]
        assert len(found) <= 1
        return found[0] if found else None

    def crl_path(self, certificate: x509.Certificate) -> str:
        """The path that a certificate's CRLDP names (B16)."""
        (point,) = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert point.full_name is not None
        return str(point.full_name[0].value).removeprefix(f"{self.config.crl_base}/")

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """Looks into the database as its owner."""
        async with acquire(self.database.owner) as conn:
            return list(await conn.fetch(sql, *arguments))


@asynccontextmanager
async def running(database: Database, folder: Path, clock: FakeClock, config: Config) -> AsyncIterator[Site]:
    """A site that has just been set up."""
    site = Site(database, config, State(folder), clock)
    await site.open()
    try:
        yield site
    finally:
        await site.close()
