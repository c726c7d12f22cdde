"""A presigner on a machine of its own: no publish folder, no cache, so it fetches what the world was told (C16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from crlgen.origin.main import Origin
from quash.errors import QuashError
from quash.pki import crl
from quash.pki.serials import format_serial
from quash.store import crls
from quash.store.database import acquire
from responder.presign import crl_origin
from responder.presign.crl_origin import CrlOrigin
from tests.unit.presign.test_published import publish

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Elsewhere:
    """The CRL origin of another machine, over its own folder; `instead` takes the place of its answers."""

    world: Any
    folder: Path
    base: str = ""
    asked: list[str] = field(default_factory=list)
    instead: Handler | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        return await (self.instead or Origin(self.folder, self.world.clock).handle)(request)

    async def scope(self, authority: Any, *, shard: int | None = None, published: bool = False) -> str:
        """A CRL scope of the issuer; returns its path."""
        scope, path = (
            ("full", f"{authority.name}.crl") if shard is None else (str(shard), f"{authority.name}/{shard}.crl")
        )
        async with acquire(self.world.database.owner) as conn:
            await crls.add_scope(
                conn, issuer_id=authority.id, scope=scope, shard=shard, url=f"http://crl.example.test/{path}",
                path=path, idp=shard is not None,
            )  # fmt: skip
            if published:
                found = await crls.find_scope(conn, authority.id, shard)
                assert found is not None
                await crls.reserve(
                    conn, found, number=1, this_update=1, next_update=2, entries=0, covers="1:1:", scheduled=True
                )
                await crls.published(conn, found, 1, 1)
        return path

    def publish(self, authority: Any, path: str, serials: list[bytes], **more: Any) -> None:
        made = publish(self.world, authority, serials, **more)
        (self.folder / path).parent.mkdir(exist_ok=True)
        made.rename(self.folder / path)

    async def presigner(self) -> Any:
        return await self.world.presigner(crl_origin=CrlOrigin(self.base, self.world.clock))


@pytest.fixture
async def elsewhere(world: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")  # not below the presigner's own folder, which it reads whole
    found = Elsewhere(world, folder)
    runner = web.ServerRunner(web.Server(found.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def refusal(elsewhere: Elsewhere) -> QuashError:
    """Of a step that signed nothing."""
    with pytest.raises(QuashError) as error:
        await (await elsewhere.presigner()).step()
    assert await elsewhere.world.database.owner.fetchval("select count(*) from feed") == 0
    return error.value


async def test_lost_revocation_that_only_the_origin_tells_of(world: Any, elsewhere: Elsewhere) -> None:
    """A restored database, and an empty folder: nothing is signed, the serial is named; once it is back, all is."""
    authority = await world.authority()
    path = await elsewhere.scope(authority, published=True)
    kept, lost = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, kept)
    elsewhere.publish(authority, path, [kept, lost])
    told = await refusal(elsewhere)
    assert told.code == "presign.revocations_lost"
    assert format_serial(lost) in told.message
    assert format_serial(kept) not in told.message
    await world.revoke(authority, lost)
    await (await elsewhere.presigner()).step()
    assert (await world.cache())[authority.id, lost].version == 1


async def test_what_lies_in_the_folder_is_not_fetched(world: Any, elsewhere: Elsewhere) -> None:
    """Each scope by itself: a machine may hold the root's CRL and no other."""
    first, second = await world.authority(), await world.authority("tls-ov")
    paths = [await elsewhere.scope(each, published=True) for each in (first, second)]
    elsewhere.publish(second, paths[1], [])
    publish(world, first, []).rename(world.crl_folder / paths[0])
    await (await elsewhere.presigner()).step()
    assert elsewhere.asked == [f"/{paths[1]}"]


async def test_scope_without_a_crl_yet(world: Any, elsewhere: Elsewhere) -> None:
    """A new system signs before its first CRL is out; once the database knows of one, it must be there."""
    authority = await world.authority()
    await elsewhere.scope(authority)
    await (await elsewhere.presigner()).step()
    await elsewhere.scope(await world.authority("tls-ov"), published=True)
    await world.presigners[0].close()
    with pytest.raises(QuashError) as error:
        await (await elsewhere.presigner()).step()
    assert error.value.code == "presign.crls_unreachable"
    assert "404" in error.value.message


async def test_unpublished_in_the_database_but_out(world: Any, elsewhere: Elsewhere) -> None:
    """A backup from before the issuer's first CRL says that there is none: the world knows better."""
    authority = await world.authority()
    elsewhere.publish(authority, await elsewhere.scope(authority), [await world.issue(authority)])
    assert (await refusal(elsewhere)).code == "presign.revocations_lost"


async def away(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=503)


async def moved(request: web.BaseRequest) -> web.StreamResponse:
    """To where nothing is."""
    return web.Response(status=404 if request.path == "/gone" else 302, headers={"Location": "/gone"})


async def never(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1000):
        await response.write(bytes(4096))
    return response


@pytest.mark.parametrize("answer", [away, moved, never, endless])
async def test_nothing_is_signed_while_the_origin_does_not_tell(
    world: Any, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, answer: Handler
) -> None:
    """Whatever it does instead, within bounds of time and size; the next start after it is back goes through."""
    monkeypatch.setattr(crl_origin, "_READ", 0.3)
    monkeypatch.setattr(crl_origin, "_MAX_CRL", 100_000)
    authority = await world.authority()
    await world.issue(authority)
    elsewhere.publish(authority, await elsewhere.scope(authority), [])
    elsewhere.instead = answer
    assert (await refusal(elsewhere)).code == "presign.crls_unreachable"
    elsewhere.instead = None
    assert await (await elsewhere.presigner()).step() > 0


async def test_nobody_listens(world: Any, elsewhere: Elsewhere) -> None:
    """Nor while there is no connection; a database that knows of no CRL is no excuse, it may be the restored one."""
    await elsewhere.scope(await world.authority())
    elsewhere.base = "http://127.0.0.1:9"
    assert (await refusal(elsewhere)).code == "presign.crls_unreachable"


@pytest.mark.parametrize("what", ["missing", "a page for people", "of another issuer", "more than the database"])
async def test_it_is_asked_less_and_less_often(world: Any, elsewhere: Elsewhere, what: str) -> None:
    """The presigner tries each second: with fifty CRLs and one refused that would fetch all others each time.

    Once all agree, and something else ends its work, it asks at once.
    """
    authority, other = await world.authority(), await world.authority("tls-ov")
    elsewhere.publish(authority, await elsewhere.scope(authority, published=True), [])
    path = await elsewhere.scope(other, published=True)
    if what == "a page for people":
        (elsewhere.folder / path).write_text("<html>We are moving</html>")
    elif what != "missing":
        serials = [await world.issue(other)] if what == "more than the database" else []
        elsewhere.publish(authority if what == "of another issuer" else other, path, serials)
    presigner = await elsewhere.presigner()
    for _ in range(20):
        with pytest.raises(QuashError):
            await presigner.step()
        await world.clock.advance(1)
    assert elsewhere.asked.count(f"/{path}") == len(elsewhere.asked) / 2 == 5  # at 0, 1, 3, 7 and 15 seconds
    elsewhere.publish(other, path, [])
    await world.clock.advance(16)
    await presigner.step()
    await presigner._end()
    await presigner.step()
    assert len(elsewhere.asked) == 14


@pytest.mark.parametrize(
    "what", ["damaged", "of another issuer", "of another shard", "of no shard", "signed by another"]
)
async def test_what_is_not_this_scopes_crl_is_not_believed(world: Any, elsewhere: Elsewhere, what: str) -> None:
    """Plain HTTP vouches for nothing: the issuer's signature does, and the URL that the IDP names (B15)."""
    authority, other = await world.authority(), await world.authority("tls-ov")
    await world.issue(authority)
    path = await elsewhere.scope(authority, shard=0)
    url = "http://crl.example.test/tls-dv/{}.crl"
    if what == "of another issuer":
        elsewhere.publish(other, path, [])
    elif what == "of no shard":
        elsewhere.publish(authority, path, [])
    elif what == "signed by another":
        elsewhere.publish(authority, path, [], by=other, idp_urls=(url.format(0),))
    else:
        elsewhere.publish(authority, path, [], idp_urls=(url.format(0 if what == "damaged" else 1),))
    if what == "damaged":
        file = elsewhere.folder / path
        file.write_bytes(file.read_bytes()[:-1])
    assert (await refusal(elsewhere)).code == ("crl.malformed" if what == "damaged" else "presign.foreign_crl")
    elsewhere.publish(authority, path, [], idp_urls=(url.format(0),))
    assert crl.read_crl((elsewhere.folder / path).read_bytes()).idp_urls == (url.format(0),)
    assert await (await elsewhere.presigner()).step() > 0


def alarms(code: str) -> float:
    return REGISTRY.get_sample_value("quash_presign_alarms_total", {"code": code}) or 0.0


async def test_what_was_believed_before_stands_in(world: Any, elsewhere: Elsewhere) -> None:
    """A database that goes for a moment, while the origin is away, must not end the signing: an alarm, and no more."""
    authority = await world.authority()
    elsewhere.publish(authority, await elsewhere.scope(authority, published=True), [])
    presigner = await elsewhere.presigner()
    await presigner.step()
    elsewhere.instead, before = away, alarms("presign.crls_unreachable")
    await presigner._end()
    await presigner.step()
    assert presigner.leading
    assert alarms("presign.crls_unreachable") == before + 1
    assert len(elsewhere.asked) == 2


async def test_what_stands_in_is_compared_too(world: Any, elsewhere: Elsewhere) -> None:
    """The database that comes back may be another one."""
    authority = await world.authority()
    path, lost = await elsewhere.scope(authority, published=True), await world.issue(authority)
    elsewhere.publish(authority, path, [lost])
    elsewhere.instead = away
    origin = CrlOrigin(elsewhere.base, world.clock)
    origin.stand_in(path, (elsewhere.folder / path).read_bytes())
    with pytest.raises(QuashError) as error:
        await (await world.presigner(crl_origin=origin)).step()
    assert error.value.code == "presign.revocations_lost"
    assert format_serial(lost) in error.value.message


async def standing_by(elsewhere: Elsewhere, presigner: Any) -> None:
    """Until a look of who stands by is over."""
    async with asyncio.timeout(20):
        while not presigner._looked:
            await presigner.step()
            await asyncio.sleep(0.01)


async def test_who_stands_by_has_fetched_them_before(world: Any, elsewhere: Elsewhere) -> None:
    """The origin may be on the machine that dies, with the presigner that led."""
    authority = await world.authority()
    path = await elsewhere.scope(authority, published=True)
    elsewhere.publish(authority, path, [])
    first, second = await elsewhere.presigner(), await elsewhere.presigner()
    await first.step()
    await standing_by(elsewhere, second)
    assert not second.leading
    assert elsewhere.asked == [f"/{path}"] * 2
    elsewhere.instead = away
    await first.close()
    await second.step()
    assert second.leading


async def test_who_could_not_take_over_says_so_before(world: Any, elsewhere: Elsewhere) -> None:
    """And goes on standing by; half a minute later it looks again."""
    authority = await world.authority()
    elsewhere.publish(authority, await elsewhere.scope(authority, published=True), [])
    first, second = await elsewhere.presigner(), await elsewhere.presigner()
    await first.step()
    elsewhere.instead = away
    with pytest.raises(QuashError) as error:
        await standing_by(elsewhere, second)
    assert error.value.code == "presign.crls_unreachable"
    elsewhere.instead = None
    with pytest.raises(QuashError):
        await second.step()
    await world.clock.advance(31)
    with pytest.raises(QuashError):
        await second.step()  # it looks
    await asyncio.wait([second._looking], timeout=20)
    assert await second.step() == 0


async def test_an_old_crl_is_compared_and_told(world: Any, elsewhere: Elsewhere) -> None:
    """What lies in the folder after its nextUpdate is not the newest; nor is what an origin is stuck at."""
    authority = await world.authority()
    path = await elsewhere.scope(authority, published=True)
    publish(world, authority, [], lasts=-1).rename(world.crl_folder / path)
    elsewhere.publish(authority, path, [], lasts=-1)
    before = alarms("presign.crl_expired")
    presigner = await elsewhere.presigner()
    await presigner.step()
    assert elsewhere.asked == [f"/{path}"]
    assert alarms("presign.crl_expired") == before + 1
    elsewhere.instead = away
    await presigner.close()
    await (await elsewhere.presigner()).step()  # the one in the folder stands in


async def test_a_ca_that_has_ended_is_not_asked_for(world: Any, elsewhere: Elsewhere) -> None:
    """Nobody must keep its URL served for us."""
    authority = await world.authority()
    await elsewhere.scope(authority, published=True)
    await world.database.owner.execute("update issuer_certificate set not_after = $1", world.now - 1)
    await (await elsewhere.presigner()).step()
    assert elsewhere.asked == []
