"""What is counted: each answer once, by issuer, status and source, errors by cause, ages in the right bucket."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client import REGISTRY, generate_latest
from structlog.testing import capture_logs

from quash.cache import layout
from quash.errors import Kind, QuashError
from quash.pki import der
from quash.pki.certid import CertId, CertIdHash, encode_certid
from quash.pki.ocsp_request import build_request
from responder.serve.metrics import AGES, HOUR, age_bucket, age_changes
from tests.unit.serve.in_memory import DV, ELSEWHERE, EXPIRED, GOOD, MISSING, NOW, OV, REVOKED, STRAY, Site, settle
from tests.unit.serve.test_differential import get, post


def value(name: str, **labels: str) -> float:
    """Of one sample, 0 when there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def told() -> dict[str, float]:
    """All errors, by outcome, cause and issuer."""
    text = generate_latest(REGISTRY).decode()
    sample = r'^quash_ocsp_errors_total\{cause="(.*)",issuer="(.*)",outcome="(.*)"\} (\S+)$'
    found = re.findall(sample, text, re.MULTILINE)
    return {f"{outcome}: {cause} ({issuer})": float(count) for cause, issuer, outcome, count in found}


async def ask(site: Site, *requests: bytes) -> None:
    """Each on a connection of its own."""
    for request in requests:
        connection, wire = site.connect()
        connection.data_received(request)
        await settle(40)
        wire.close()
        await settle()
    site.worker.count()


def new_errors(before: dict[str, float]) -> dict[str, float]:
    """Since then."""
    return {name: count - before.get(name, 0) for name, count in told().items() if count != before.get(name, 0)}


UNKNOWN_HASH = der.tlv(
    der.SEQUENCE,
    der.tlv(der.SEQUENCE, der.oid("2.16.840.1.101.3.4.2.3")),
    der.tlv(der.OCTET_STRING, bytes(64)),
    der.tlv(der.OCTET_STRING, bytes(64)),
    der.tlv(der.INTEGER, b"\1"),
)


def about(*cert_ids: bytes) -> bytes:
    """A POST of a request about several CertIDs, DER."""
    listed = der.tlv(der.SEQUENCE, *(der.tlv(der.SEQUENCE, each) for each in cert_ids))
    return post(der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, listed)), "/")


CAUSES: dict[str, bytes] = {
    "unauthorized: unknown_serial (tls-dv)": post(build_request(DV.cert_id(MISSING))),
    "unauthorized: unknown_issuer ()": post(build_request(CertId(CertIdHash.SHA1, bytes(20), bytes(20), GOOD))),
    "unauthorized: unknown_hash ()": about(UNKNOWN_HASH),
    "unauthorized: other_issuers_path (demo/ca1)": post(build_request(OV.cert_id(ELSEWHERE)), "/tls-dv"),
    "unauthorized: too_many_certificates ()": about(*(encode_certid(DV.cert_id(bytes([n]))) for n in range(1, 40))),
    "unauthorized: several_issuers ()": about(*map(encode_certid, (DV.cert_id(GOOD), OV.cert_id(ELSEWHERE)))),
    "unauthorized: no_live_signer (tls-dv)": about(*map(encode_certid, (DV.cert_id(GOOD), DV.cert_id(REVOKED)))),
    "try_later: past_next_update (tls-dv)": post(build_request(DV.cert_id(EXPIRED))),
    "unknown_signer: unknown_signer (tls-dv)": post(build_request(DV.cert_id(STRAY))),
    "malformed_request: malformed ()": post(b"garbage"),
    "http: http_404 ()": post(build_request(DV.cert_id(GOOD)), "/elsewhere"),
    "http: http_405 ()": b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "http: http_413 ()": post(bytes(20_000)),
    "http: http_414 ()": get(b"A" * 9_000),
    "http: http_431 ()": b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 9_000 + b"\r\n\r\n",
    "http: http_400 ()": b"\x16\x03\x01\r\n\r\n",
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_an_error_is_counted_with_its_cause(cause: str) -> None:
    """Once, under the one cause that it has."""
    before = told()
    await ask(Site(), CAUSES[cause])
    assert new_errors(before) == {cause: 1}


async def test_the_cache_as_a_cause() -> None:
    """A miss of a stale cache, and `good` from one that is too old, have causes of their own."""
    site = Site()
    for ahead, cause in ((61, "cache_incomplete"), (90_000, "cache_too_old_for_good")):
        site.clock.step(NOW + ahead - site.clock.now())
        site.worker.refresh()
        before = told()
        await ask(site, post(build_request(DV.cert_id(MISSING if ahead == 61 else GOOD))))
        assert new_errors(before) == {f"try_later: {cause} (tls-dv)": 1}


@pytest.mark.parametrize("fast", [True, False])
async def test_signed_answers_are_counted_by_issuer_and_age(fast: bool) -> None:
    """By both paths alike: an hour old, and later in the bucket of its age by then, without a new record."""
    site = Site(fast=fast)
    request = post(build_request(OV.cert_id(ELSEWHERE, CertIdHash.SHA1)), "/")
    labels = {"source": "fast" if fast else "full", "method": "POST", "status": "200", "outcome": "revoked"}
    labels |= {"hash": "sha1", "issuer": "demo/ca1"}

    def answers() -> float:
        return value("quash_ocsp_answers_total", **labels)

    def within(seconds: str) -> float:
        return value("quash_ocsp_answer_age_seconds_bucket", issuer="demo/ca1", le=seconds)

    before = (answers(), within("600.0"), within("3600.0"), within("14400.0"), within("+Inf"))
    await ask(site, request)
    site.clock.step(1)  # an hour and a second
    await ask(site, request, request)
    after = (answers(), within("600.0"), within("3600.0"), within("14400.0"), within("+Inf"))
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 0, 1, 3, 3]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("validity", "late_after"), [(10 * HOUR, 5 * HOUR - HOUR // 4), (48 * HOUR, 23 * HOUR)])
async def test_late_answers_are_counted(fast: bool, validity: int, late_after: int) -> None:
    """By their own validity (A2 to A4), from the second on at which a newer one is missing, without a new record."""
    key = layout.record_key(2, ELSEWHERE)
    began = NOW + 1 - late_after
    site = Site(fast=fast, records={key: OV.record(ELSEWHERE, began, revoked=(0, began), validity=validity)})
    request = post(build_request(OV.cert_id(ELSEWHERE)), "/")
    counts = []
    for _ in range(3):
        await ask(site, request, request)
        counts.append(value("quash_ocsp_late_answers_total", issuer="demo/ca1"))
        site.clock.step(1)
    assert [count - counts[0] for count in counts] == [0, 2, 4]


@pytest.mark.parametrize("age", [0, 59, *AGES, *(age + 1 for age in AGES), 10**6])
def test_age_buckets(age: int) -> None:
    """`le` of Prometheus: an age is in the first bucket whose bound it does not exceed, until it does."""
    bucket = age_bucket(age)
    assert bucket == sum(bound < age for bound in AGES)
    changes = age_changes(NOW, bucket) - NOW
    assert age < changes
    assert age_bucket(min(changes, 10**9)) == min(bucket + 1, len(AGES))
    assert age_bucket(changes - 1) == bucket


async def test_the_access_log_is_a_sample_without_addresses() -> None:
    """Every third answer of each path, structured, and the answers are what they are without it."""
    requests = [get(build_request(DV.cert_id(serial))) for serial in (GOOD, REVOKED)]
    with capture_logs() as lines:
        site = Site(access_log_every=3)
        connection, wire = site.connect()
        await settle()
        for _ in range(6):
            for request in requests:
                connection.data_received(request)
        plain = Site()
        other, plain_wire = plain.connect()
        await settle()
        for _ in range(6):
            for request in requests:
                other.data_received(request)
        assert wire.written == plain_wire.written
        for each in (wire, plain_wire):
            each.close()
        for _ in range(3):
            await ask(site, post(build_request(DV.cert_id(MISSING))))
        await asyncio.sleep(0)
    seen = [line for line in lines if line["event"] == "ocsp.answer"]
    assert [(line["source"], line["outcome"], line["serial"], line["cause"]) for line in seen] == [
        *(("fast", outcome, serial, "") for outcome, serial in (("good", "01"), ("revoked", "02")) * 2),
        ("full", "unauthorized", MISSING.hex(), "unknown_serial"),
    ]
    assert {line["age"] for line in seen} == {3600, None}
    assert {line["issuer"] for line in seen} == {"tls-dv"}
    assert set(seen[0]) == {
        *("event", "log_level", "one_of", "source", "method", "status", "outcome", "cause", "issuer", "hash"),
        *("serial", "age", "octets"),
    }


async def test_a_line_that_cannot_be_written_costs_no_answer() -> None:
    """The cache goes away between the answer and its line: the answer goes out, and the line does not."""
    site = Site(access_log_every=1)
    looks = 0

    def second_look_fails(key: bytes) -> bytes | None:
        nonlocal looks
        looks += 1
        if looks % 2 == 0:
            raise QuashError("cache.unreadable", "gone", Kind.UNAVAILABLE)
        return site.reader.records.get(key)

    site.reader.fail = second_look_fails
    connection, wire = site.connect()
    with capture_logs() as lines:
        for _ in range(3):
            connection.data_received(get(build_request(DV.cert_id(GOOD))))
    assert wire.written.count(b"HTTP/1.1 200 OK") == 3
    assert looks == 6
    assert lines == []
    wire.close()
    await settle()
