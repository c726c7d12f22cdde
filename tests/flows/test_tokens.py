"""A whole deployment whose CA keys lie on one SoftHSM2 token and its OCSP keys on another, of EC and of RSA (design 2).

What it signs is read and verified by pyca alone, as everywhere in these flows.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from issuer.signer.key_files import KeyFiles
from quash.errors import QuashError
from quash.keys import KeyUnavailable
from quash.keys.library import RESTART_EVERY
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import signer_requests
from quash.store.database import acquire
from tests.support.flows import Site, running
from tests.support.initialising import demo_config
from tests.support.postgres import Database
from tests.support.softhsm import Token, make_token

KINDS = {"tls-dv": "ec-p256", "tls-ov": "rsa-2048"}
PUBLIC = {"tls-dv": ec.EllipticCurvePublicKey, "tls-ov": rsa.RSAPublicKey}


@pytest.fixture(scope="module")
def ca() -> Token:
    return with_a_key(make_token())


@pytest.fixture(scope="module")
def ocsp() -> Token:
    return with_a_key(make_token())


def with_a_key(token: Token) -> Token:
    """The library of this process knows the token from here on."""
    token.make_key("unused")
    return token


def config_of(database: Database, ca: Token, ocsp: Token) -> Config:
    """The demo's, with keys made on the tokens."""
    demo = demo_config(database.config).model_dump()
    for issuer in demo["issuers"]:
        if issuer["name"] in KINDS:
            issuer["ocsp_signer"] = {**issuer["ocsp_signer"], "key": KINDS[issuer["name"]]}
    keys = {"ca_token": ca.uri, "ocsp_token": ocsp.uri}
    return Config.model_validate({**demo, "keys": keys, "presign": {"buckets": 2}})


async def test_signing_on_tokens(database: Database, clock: FakeClock, tmp_path: Path, ca: Token, ocsp: Token) -> None:
    """Issued, revoked, on the CRL, a signer renewed on its token; and each token pulled out for a while under work."""
    async with running(database, tmp_path, clock, config_of(database, ca, ocsp)) as site:
        assert not list((site.state.keys / "ca").glob("*.pem"))
        assert not list((site.state.keys / "ocsp").glob("tls-*.pem"))
        await site.step()
        keys = {}
        for name in KINDS:
            certificate = await site.issue(name)
            assert isinstance(site.issuer(name).public_key(), PUBLIC[name])
            keys[name] = site.key(certificate)
            assert site.node.ask(keys[name]).word == "good"
        await _ocsp_token_away(site, ocsp, keys["tls-ov"])
        await _ca_token_away(site, ca, keys["tls-ov"])
        await _renewed_on_its_token(site, keys["tls-dv"])


async def _ocsp_token_away(site: Site, token: Token, key: Any) -> None:
    """A revocation is recorded, and told as soon as the token is back; health says meanwhile which key is away."""
    with token.away():
        await site.revoke(key, Reason.superseded)
        await site.spread()
        assert site.node.ask(key).word == "good"
        await site.clock.advance(60)
        await site.spread()
        assert "tls-ov" in site.presigner.key_problems
    for _ in range(50):
        await asyncio.sleep(RESTART_EVERY / 5)
        await site.clock.advance(61)
        await site.spread()
        if not site.presigner.key_problems:
            break
    assert site.presigner.key_problems == {}
    assert site.node.ask(key).word == "revoked"


async def _ca_token_away(site: Site, token: Token, key: Any) -> None:
    """The CRL waits, and says for what."""
    with token.away():
        for _ in range(3):  # it waits a moment for more of the same burst
            await site.builder.step()
            await site.clock.advance(2)
        assert any("key.unavailable" in said for said in site.builder.problems.values()), site.builder.problems
    for _ in range(50):
        await asyncio.sleep(RESTART_EVERY / 5)
        await site.clock.advance(61)
        await site.spread()
        await site.builder.step()
        if not site.builder.problems:
            break
    assert site.listed(key) == site.node.ask(key).entry  # A26


async def _renewed_on_its_token(site: Site, key: Any) -> None:
    """The next signer's key is made where the last one's is, and answers come from it."""
    name, before = key[0], site.node.ask(key).signer
    async with acquire(site.admin) as conn, conn.transaction():
        (row,) = await site.fetch("select id from issuer where name = $1", name)
        await signer_requests.order_switch(conn, row["id"], name, actor="operator:test", at=site.now)
    await site.spread()
    assert await site.rotation.step() == 1
    await site.clock.advance(1)
    await site.spread()
    said = site.node.ask(key)
    assert said.word == "good"
    assert said.signer != before
    rows = await site.fetch("select key_ref from ocsp_signer where issuer_id = $1", row["id"])
    assert all(row["key_ref"].startswith("pkcs11:") for row in rows)
    assert len({row["key_ref"] for row in rows}) == 2


async def test_a_token_that_goes_away_while_nobody_signs(
    database: Database, clock: FakeClock, tmp_path: Path, ca: Token, ocsp: Token
) -> None:
    """Each process says so within a minute, not when a certificate waits for it; and when it is back."""
    async with running(database, tmp_path, clock, config_of(database, ca, ocsp)) as site:
        await site.step()
        await site.signer.open_keys()
        with ocsp.away(), ca.away():
            await clock.advance(61)
            await site.presigner.step()
            assert "tls-ov" in site.presigner.key_problems
            with pytest.raises(KeyUnavailable):
                await site.signer.open_keys()
        for _ in range(50):
            await asyncio.sleep(RESTART_EVERY / 5)
            await clock.advance(61)
            await site.presigner.step()
            if not site.presigner.key_problems:
                break
        assert site.presigner.key_problems == {}
        for _ in range(50):
            with contextlib.suppress(KeyUnavailable):
                await site.signer.open_keys()
                break
            await asyncio.sleep(RESTART_EVERY / 5)
        await site.signer.open_keys()


def test_one_token_for_both_is_refused(database: Database, tmp_path: Path, ca: Token) -> None:
    """CA and OCSP keys on one token would share its PIN."""
    with pytest.raises(QuashError, match=r"key\.shared_token"):
        KeyFiles(config_of(database, ca, ca), State(tmp_path))


async def test_processes_refuse_a_shared_token(
    database: Database, clock: FakeClock, tmp_path: Path, ca: Token, ocsp: Token
) -> None:
    """However the references came into the database: CA signer and presigner say so at their start."""
    config = config_of(database, ca, ocsp)
    config = config.model_copy(update={"keys": config.keys.model_copy(update={"ca_token": None, "ocsp_token": None})})
    async with running(database, tmp_path, clock, config) as site:
        await site.fetch("update issuer set key_ref = $1 where name = 'tls-dv'", ocsp.key("ca"))
        await site.fetch("update ocsp_signer set key_ref = $1", ocsp.key("k"))
        with pytest.raises(QuashError, match=r"key\.shared_token"):
            await site.signer.open_keys()
        with pytest.raises(QuashError, match=r"key\.shared_token"):
            await site.presigner.step()
        assert not await site.fetch("select from feed")


async def test_a_key_that_is_not_its_certificates(
    database: Database, clock: FakeClock, tmp_path: Path, ca: Token, ocsp: Token
) -> None:
    """Told at the start, before any certificate waits for it: OCSP keys by health, a CA's key by not being opened."""
    async with running(database, tmp_path, clock, config_of(database, ca, ocsp)) as site:
        await site.fetch("update ocsp_signer set key_ref = $1 where id = 1", ocsp.key("unused"))
        await site.fetch("update issuer set key_ref = $1 where name = 'tls-dv'", ca.key("unused"))
        await site.presigner.step()
        (problem,) = site.presigner.key_problems.values()
        assert "presign.key_mismatch" in problem
        with pytest.raises((QuashError, KeyUnavailable), match=r"key\.mismatch"):
            await site.signer.open_keys()
