"""Submission to real sockets: SCTs that pyca reads, and everything that a log can do wrong."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from issuer.ct import sct
from issuer.ct.double import LogDouble
from issuer.ct.sct import Sct
from issuer.ct.tbs import with_scts
from quash.errors import Kind, QuashError
from quash.runtime.clock import FakeClock
from tests.support.transparency import SPARE, THREE, log_key, logs_of
from tests.unit.ct.conftest import DAY, NOW, Chain

LONG, SHORT = 199 * DAY, 90 * DAY


async def test_a_long_certificate_gets_three_scts_that_pyca_reads(
    tmp_path: Path, clock: FakeClock, chain: Chain
) -> None:
    """E1, E5, E7: of three logs; pyca finds them in the final certificate, static extensions unchanged."""
    async with logs_of(tmp_path / "list", clock, [chain.root]) as (client, logs):
        octets = await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        final = x509.load_der_x509_certificate(chain.signed(with_scts(chain.tbs, octets)))
        extension = final.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
        found = {each.log_id: each for each in extension.value}
        assert found.keys() == {log.log_id for log in logs.values()}
        assert not extension.critical
        for log in logs.values():
            assert sct.leaf_index(found[log.log_id].extension_bytes) == (0 if log.kind == "static" else None)
        assert [each.encode() for each in sct.decode_list(octets)] == [
            octets[start : start + size] for start, size in _entries(octets)
        ]


def _entries(octets: bytes) -> list[tuple[int, int]]:
    found, at = [], 2
    while at < len(octets):
        size = int.from_bytes(octets[at : at + 2], "big")
        found.append((at + 2, size))
        at += 2 + size
    return found


async def test_a_short_certificate_gets_two_of_two_operators(tmp_path: Path, clock: FakeClock, chain: Chain) -> None:
    """E1, E2, E4: two logs are asked and no third."""
    async with logs_of(tmp_path / "list", clock, [chain.root], SPARE) as (client, logs):
        octets = await client.sct_list(chain.precertificate, chain.above, SHORT, NOW + SHORT)
        asked = [log for log in logs.values() if log.entries]
        assert len(sct.decode_list(octets)) == len(asked) == 2
        assert len({log.operator for log in asked}) == 2


Fault = Callable[[LogDouble], None]


def _mangled(change: Callable[[Sct], Sct]) -> Fault:
    def apply(log: LogDouble) -> None:
        log.mangle = change  # type: ignore[method-assign]

    return apply


def _set(**values: object) -> Fault:
    def apply(log: LogDouble) -> None:
        for name, value in values.items():
            setattr(log, name, value)

    return apply


def _answering(body: bytes, **headers: str) -> Fault:
    def apply(log: LogDouble) -> None:
        async def handle(_request: web.BaseRequest, _path: str) -> web.Response:
            return web.Response(body=body, headers=headers)

        log.handle = handle  # type: ignore[method-assign]

    return apply


def _in_pieces(log: LogDouble) -> None:
    """The answer comes in two pieces, as over any long line."""
    whole = log.handle

    async def handle(request: web.BaseRequest, path: str) -> web.StreamResponse:
        body = (await whole(request, path)).body
        assert isinstance(body, bytes)
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        for piece in (body[:50], body[50:]):
            await response.write(piece)
            await asyncio.sleep(0.05)
        return response

    log.handle = handle  # type: ignore[method-assign, assignment]


def _of_another_key(found: Sct) -> Sct:
    return replace(found, signature=log_key("another").sign(b"data", ec.ECDSA(hashes.SHA256())))


FAULTS: dict[str, Fault] = {
    "slow": _set(delay=60),
    "HTTP 500": _set(status=500),
    "HTTP 429": _set(status=429),
    "HTTP 404": _set(status=404),
    "redirect": _set(status=302),
    "bad signature": _mangled(lambda found: replace(found, signature=found.signature[:-1] + b"\0")),
    "empty signature": _mangled(lambda found: replace(found, signature=b"")),
    "signature of another key": _mangled(_of_another_key),
    "another log's id": _mangled(lambda found: replace(found, log_id=bytes(32))),
    "another time": _mangled(lambda found: replace(found, timestamp=found.timestamp - 1)),
    "time of the future": _mangled(lambda found: replace(found, timestamp=found.timestamp + 3_600_000)),
    "time before 1970": _mangled(lambda found: replace(found, timestamp=-1)),
    "time of more than 64 bits": _mangled(lambda found: replace(found, timestamp=1 << 64)),
    "extensions as large as an SCT list": _mangled(lambda found: replace(found, extensions=bytes(40_000))),
    "id of one octet": _mangled(lambda found: replace(found, log_id=b"1")),
    "no JSON": _answering(b"\xff"),
    "JSON of something else": _answering(b"[]"),
    "nothing": _answering(b""),
    "deep JSON": _answering(b"[" * 5000),
    "endless": _answering(b" " * 10_000_000),
    "broken compression": _answering(b"{}", **{"Content-Encoding": "deflate"}),
    "extensions added": _mangled(lambda found: replace(found, extensions=found.extensions + b"\1\0\0")),
    "extensions lost": _mangled(lambda found: replace(found, extensions=b"" if found.extensions else b"\0\0\0")),
    "another hash": _mangled(lambda found: replace(found, hash_algorithm=2)),
    "another signature algorithm": _mangled(lambda found: replace(found, signature_algorithm=1)),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_log_that_fails_is_replaced_by_another(
    tmp_path: Path, clock: FakeClock, chain: Chain, fault: str
) -> None:
    """Each fault in a log of either kind: its SCT is not used, a spare log's is, and nobody waits for the slow one."""
    began = time.monotonic()
    for broken in ("alpha-one", "alpha-two"):
        async with logs_of(tmp_path / "list", clock, [chain.root], SPARE) as (client, logs):
            FAULTS[fault](logs[broken])
            octets = await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
            used = {each.log_id for each in sct.decode_list(octets)}
            assert logs[broken].log_id not in used
            assert len(used) == 3
    assert time.monotonic() - began < 20


async def test_an_answer_may_come_in_pieces(tmp_path: Path, clock: FakeClock, chain: Chain) -> None:
    """How the network cuts an answer says nothing of it: there are three logs, and each one's SCT is used."""
    async with logs_of(tmp_path / "list", clock, [chain.root]) as (client, logs):
        _in_pieces(logs["alpha-one"])
        octets = await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        assert len(sct.decode_list(octets)) == 3


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_BASE64 = st.binary(max_size=80).map(lambda octets: base64.b64encode(octets).decode())
_ANSWERS = st.binary() | _JSON.map(orjson.dumps) | st.fixed_dictionaries(
    {"sct_version": st.just(0) | _JSON, "timestamp": st.integers(-2, (1 << 64) - 1) | _JSON},
    optional={
        "id": st.just(base64.b64encode(bytes(32)).decode()) | _BASE64 | _JSON,
        "extensions": _BASE64 | _JSON,
        "signature": st.just("BAMAAA==") | _BASE64 | _JSON,
    },
).map(orjson.dumps)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(body=_ANSWERS)
def test_an_answer_is_an_sct_that_can_be_written_or_no_sct(body: bytes) -> None:
    """E7: whatever a log says, no other error comes of it."""
    try:
        found = sct.read_answer(body)
    except QuashError:
        return
    assert sct.decode(found.encode()) == found
    sct.signed_data(found, b"entry")
    sct.leaf_index(found.extensions)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_ANSWERS)
async def test_whatever_a_log_answers_costs_its_sct_alone(
    tmp_path: Path, clock: FakeClock, chain: Chain, body: bytes
) -> None:
    """Precertificate and final certificate both: another log is asked."""
    async with logs_of(tmp_path / "list", clock, [chain.root], SPARE) as (client, logs):
        _answering(body)(logs["alpha-one"])
        octets = await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        assert logs["alpha-one"].log_id not in {each.log_id for each in sct.decode_list(octets)}
        final = chain.signed(with_scts(chain.tbs, octets))
        assert (await client.log_final(final, chain.above, NOW + LONG)).log_id != logs["alpha-one"].log_id


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_a_spare_log_there_is_no_certificate(
    tmp_path: Path, clock: FakeClock, chain: Chain, fault: str
) -> None:
    """Three logs of which one fails are not enough above 180 days: the order waits, it is not signed with two SCTs."""
    async with logs_of(tmp_path / "list", clock, [chain.root], THREE, timeout=1) as (client, logs):
        FAULTS[fault](logs["beta-one"])
        with pytest.raises(QuashError) as error:
            await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        assert (error.value.code, error.value.kind) == ("ct.not_enough", Kind.UNAVAILABLE)


async def test_logs_refuse_what_is_no_precertificate_of_their_roots(
    tmp_path: Path, clock: FakeClock, chain: Chain
) -> None:
    """The double checks as a log does: poison, signatures of the chain, known root."""
    final = chain.signed(chain.tbs)
    for leaf, above, roots in (
        (final, chain.above, [chain.root]),
        (chain.precertificate, chain.above, [chain.issuer[:-1] + b"\0"]),
        (chain.precertificate[:-1] + b"\0", chain.above, [chain.root]),
    ):
        async with logs_of(tmp_path / "list", clock, roots) as (client, _):
            with pytest.raises(QuashError, match=r"ct\.not_enough"):
                await client.sct_list(leaf, above, LONG, NOW + LONG)


async def test_an_old_or_missing_list_stops_issuance_and_a_new_one_is_taken_up(
    tmp_path: Path, clock: FakeClock, chain: Chain
) -> None:
    """E9: at 70 days the list still counts, one second later not; a new file is read without a restart."""
    file = tmp_path / "list"
    async with logs_of(file, clock, [chain.root]) as (client, logs):
        clock.step(70 * DAY - 1)
        client.check()
        clock.step(2)
        with pytest.raises(QuashError, match="70 days"):
            client.check()
        with pytest.raises(QuashError, match="70 days"):
            await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        text = file.read_text()
        file.unlink()
        with pytest.raises(QuashError, match=r"ct\.log_list"):
            client.check()
        made = text.split('"log_list_timestamp":"')[1].split('"')[0]
        file.write_text(text.replace(f'"log_list_timestamp":"{made}"', '"log_list_timestamp":"2027-03-20T00:00:00Z"'))
        client.check()
        assert logs


async def test_a_shard_that_ends_too_early_is_not_asked(tmp_path: Path, clock: FakeClock, chain: Chain) -> None:
    """E9: without enough logs for this notAfter, nothing is submitted."""
    file = tmp_path / "list"
    async with logs_of(file, clock, [chain.root]) as (client, logs):
        times = '{"start_inclusive":"2020-01-01T00:00:00Z","end_exclusive":"2021-01-01T00:00:00Z"}'
        file.write_text(file.read_text().replace('"mmd":86400', f'"mmd":86400,"temporal_interval":{times}'))
        with pytest.raises(QuashError, match=r"ct\.no_logs"):
            await client.sct_list(chain.precertificate, chain.above, LONG, NOW + LONG)
        assert not any(log.entries for log in logs.values())


async def test_the_double_keeps_a_real_tree(tmp_path: Path, clock: FakeClock, chain: Chain) -> None:
    """RFC 6962 2.1: the signed tree head carries the root over all leaves; the same precertificate is one leaf."""
    async with logs_of(tmp_path / "list", clock, [chain.root]) as (client, logs), aiohttp.ClientSession() as session:
        for number in range(3):
            tbs = chain.poisoned.replace(b"www.example.org", b"ww%d.example.org" % number)
            precertificate = chain.signed(tbs)
            for _ in range(2):
                await client.sct_list(precertificate, chain.above, LONG, NOW + LONG)
        log = logs["beta-one"]
        base = client._logs().logs[-1].url
        async with session.get(base + "ct/v1/get-sth") as response:
            head = await response.json()
        assert head["tree_size"] == len(log.entries) == 3
        one, two, three = (_leaf(entry) for entry in log.entries)
        assert base64.b64decode(head["sha256_root_hash"]) == _node(_node(one, two), three)


def _leaf(entry: bytes) -> bytes:
    return _hash(b"\0" + entry)


def _node(left: bytes, right: bytes) -> bytes:
    return _hash(b"\1" + left + right)


def _hash(octets: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(octets)
    return digest.finalize()
