"""`quash ct refresh`: a list is taken whole, signed and not older, or not at all (E9)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from issuer.ct.double import LogDouble, list_of
from issuer.ct.refresh import refresh
from quash.errors import QuashError
from quash.runtime.clock import FakeClock
from quash.runtime.config import Ct
from tests.support.issuing import private_key
from tests.support.transparency import log_key

KEYS = {"rsa": private_key("rsa-publisher"), "ec": private_key("publisher")}


def listing(clock: FakeClock, at: float) -> bytes:
    log = LogDouble(operator="A", name="one", kind="rfc6962", key=log_key("one"), roots=(), clock=clock)
    return orjson.dumps(list_of([log], "http://127.0.0.1:1", at))


def sign(kind: str, text: bytes) -> bytes:
    key = KEYS[kind]
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(text, ec.ECDSA(hashes.SHA256()))


@pytest.fixture
def served() -> dict[str, bytes]:
    return {}


@pytest.fixture
async def base(served: dict[str, bytes]) -> AsyncIterator[str]:
    async def answer(request: web.BaseRequest) -> web.Response:
        body = served.get(request.path[1:])
        return web.Response(body=body) if body is not None else web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.mark.parametrize("kind", KEYS)
async def test_a_signed_list_is_taken_and_nothing_else(
    base: str, served: dict[str, bytes], tmp_path: Path, clock: FakeClock, kind: str
) -> None:
    """The newest signed list stays, whatever comes afterwards: another signature, half a list, an older one, none."""
    pem = tmp_path / "publisher.pem"
    pem.write_bytes(KEYS[kind].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    config = Ct(list_url=f"{base}/list", signature_url=f"{base}/sig", list_key=pem)
    file, now = tmp_path / "ct" / "log_list.json", clock.now()
    good = listing(clock, now)
    served |= {"list": good, "sig": sign(kind, good)}
    found = await refresh(config, file)
    assert (found.made_at, len(found.logs), file.read_bytes()) == (int(now), 1, good)
    newer, older, half = listing(clock, now + 60), listing(clock, now - 60), good[:-20]
    for text, signature, code in (
        (newer, sign(kind, good), "ct.list_signature"),
        (newer, b"", "ct.list_signature"),
        (newer, sign("ec" if kind == "rsa" else "rsa", newer), "ct.list_signature"),
        (half, sign(kind, half), "ct.log_list"),
        (older, sign(kind, older), "ct.list_older"),
        (None, sign(kind, newer), "ct.list_unreachable"),
    ):
        served.clear()
        served |= {"sig": signature, **({"list": text} if text is not None else {})}
        with pytest.raises(QuashError) as error:
            await refresh(config, file)
        assert error.value.code == code
        assert file.read_bytes() == good
    served |= {"list": newer, "sig": sign(kind, newer)}
    assert (await refresh(config, file)).made_at == int(now) + 60


async def test_an_unsigned_source_is_none(tmp_path: Path) -> None:
    """Without signature or key nothing is fetched; a key file that is none is said to be."""
    whole = {"list_url": "http://127.0.0.1:1/a", "signature_url": "http://127.0.0.1:1/b", "list_key": tmp_path / "k"}
    for missing in whole:
        with pytest.raises(QuashError, match="E9") as error:
            await refresh(Ct.model_validate({key: whole[key] for key in whole if key != missing}), tmp_path / "list")
        assert error.value.code == "ct.no_source"
