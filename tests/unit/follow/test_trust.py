"""What a node refuses of the feed, and that each refusal raises the alarm and costs nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from quash.cache import layout
from quash.cache.writer import Catalog
from quash.errors import QuashError
from quash.store.database import Connection
from quash.store.feed import FeedRow
from responder.follow.trust import Limits, Trust
from tests.support.ocsp_issuer import VALIDITY, OcspIssuer
from tests.unit.follow.conftest import BULK, URGENT, Node, refused

S, T, U = b"\x01", b"\x02", b"\x03"
ALL_BULK = Limits(sample=10**9)  # no bulk record is sampled


def future(node: Node) -> bytes:
    return node.issuer.record(S, node.now + 61)


def too_long(node: Node) -> bytes:
    return node.issuer.record(S, node.now, validity=node.issuer.row.max_validity + 1)


def bad_signature(node: Node) -> bytes:
    return node.issuer.record(S, node.now, revoked=(1, node.now), spoil=True)


def swapped_status(node: Node) -> bytes:
    """The signatures of `revoked` under a record that says good."""
    revoked = layout.decode_record(node.issuer.record(S, node.now, revoked=(1, node.now)))
    return layout.encode_record(revoked._replace(reason=None, revoked_at=0, version=5))


def other_serials_signature(node: Node) -> bytes:
    return node.issuer.record(T, node.now)


def short_signature(node: Node) -> bytes:
    record = layout.decode_record(node.issuer.record(S, node.now))
    return layout.encode_record(record._replace(signatures=(b"s" * 63, b"s" * 63)))


def unknown_signer(node: Node) -> bytes:
    return OcspIssuer(1, "tls-dv", 9).record(S, node.now)


def before_the_signer(node: Node) -> bytes:
    return node.issuer.record(S, node.issuer.starts - 1)


def after_the_signer(node: Node) -> bytes:
    record = layout.decode_record(node.issuer.record(S, node.now))
    end = node.issuer.starts + 400 * 86_400
    node.clock.step(end - VALIDITY - node.clock.now() + 10)
    return layout.encode_record(record._replace(this_update=end - VALIDITY + 1, next_update=end + 1))


def on_hold(node: Node) -> bytes:
    record = layout.decode_record(node.issuer.record(S, node.now))
    return layout.encode_record(record._replace(version=1, reason=6, revoked_at=node.now))


def garbage(node: Node) -> bytes:
    return b"\x02" + node.issuer.record(S, node.now)[1:]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (future, "future"),
        (too_long, "validity"),
        (bad_signature, "signature"),
        (swapped_status, "signature"),
        (other_serials_signature, "signature"),
        (short_signature, "signature"),
        (unknown_signer, "unknown_signer"),
        (before_the_signer, "signer_times"),
        (after_the_signer, "signer_times"),
        (on_hold, "reason"),
        (garbage, "layout"),
    ],
)
async def test_a_bad_urgent_record_is_refused_with_an_alarm(node: Node, make: object, reason: str) -> None:
    """It never reaches the cache, the metric counts it, and the good record beside it is applied."""
    bad = make(node)  # type: ignore[operator]
    good = node.issuer.record(U, node.now - 10)
    if reason == "signer_times" and make is after_the_signer:
        good = node.issuer.record(U, node.issuer.starts + 400 * 86_400 - VALIDITY)
    await node.partition(node.now + 3600, node.now + 7200)
    await node.feed(node.records((S, bad), (U, good)), at=1_800_000_000)
    before = refused(reason)
    await (await node.follower()).step()
    assert refused(reason) == before + 1
    assert node.held(S) is None
    assert node.held(U) is not None


@pytest.mark.parametrize(
    ("ahead", "validity"), [(60, VALIDITY), (0, 4 * 86_400 - 1)], ids=["sixty seconds", "longest validity"]
)
async def test_what_is_just_allowed_is_applied(node: Node, ahead: int, validity: int) -> None:
    """A thisUpdate 60 seconds ahead, and the longest validity of the issuer, are no faults."""
    await node.feed(node.records((S, node.issuer.record(S, node.now + ahead, validity=validity))))
    await (await node.follower()).step()
    assert node.held(S) is not None


async def test_a_bad_bulk_record_is_refused_whatever_the_sample(node: Node) -> None:
    """Times are looked at in every record; signatures in a sample."""
    await node.feed(node.records((S, future(node)), (T, node.issuer.record(T, node.now, spoil=True)), lane=BULK))
    await (await node.follower(limits=ALL_BULK)).step()
    assert node.held(S) is None
    assert node.held(T) is not None


async def test_a_bad_record_behind_a_thousand_alike_is_refused(node: Node) -> None:
    """What passed is remembered by all that a record says but its signatures: another time is looked at by itself."""
    good = [(bytes([1, *divmod(n, 256)]), node.issuer.record(S, node.now)) for n in range(1000)]
    before = refused("future")
    await node.feed(node.records(*good, (S, future(node)), good[0], lane=BULK))
    await (await node.follower(limits=Limits(sample=10_000))).step()
    assert refused("future") == before + 1
    assert node.held(S) is None
    assert all(node.held(serial) for serial, _ in good)


@pytest.mark.parametrize("urgent", [True, False])
def test_a_signer_vouches_for_its_own_issuer_alone(urgent: bool) -> None:
    """A13: its signature is right, for a certificate of another issuer than the record is filed under."""
    now = 1_800_000_000
    ours, theirs = OcspIssuer(1, "tls-dv", 1, starts=now), OcspIssuer(2, "tls-ov", 2, starts=now)
    trust = Trust(Catalog({1: ours.row, 2: theirs.row}, {1: ours.template_row, 2: theirs.template_row}), ALL_BULK)
    record = theirs.record(S, now)
    judged = trust.records(layout.encode_batch([(1, S, record), (2, S, record)]), urgent=urgent, now=now)
    assert judged.accepted == [(2, S, record)]
    assert [refusal.code for refusal in judged.refused] == ["unknown_signer"]


async def test_one_bad_signature_in_a_sample_has_the_whole_row_verified(node: Node) -> None:
    """The records before and after it in its row are looked at as well, and only the good ones are applied."""
    spoiled = {bytes([n]): node.issuer.record(bytes([n]), node.now, spoil=True) for n in (1, 2, 4)}
    good = {bytes([n]): node.issuer.record(bytes([n]), node.now) for n in (3, 5)}
    items = sorted((spoiled | good).items())
    await node.feed(node.records(*items, lane=BULK))
    before = refused("signature")
    await (await node.follower(limits=Limits(sample=4))).step()
    assert refused("signature") == before + 3
    assert [serial for serial, _ in items if node.held(serial)] == sorted(good)


async def test_a_heartbeat_from_the_future_does_not_keep_a_cache_fresh(node: Node) -> None:
    """Refused above 60 seconds, so that nothing looks fresh longer than it is."""
    await node.feed(node.heartbeat(node.now + 60))
    follower = await node.follower()
    await follower.step()
    before = refused("future")
    await node.feed(node.heartbeat(node.now + 61))
    await follower.step()
    assert node.writer.heartbeat() == node.now + 60
    assert refused("future") == before + 1


async def test_a_node_whose_clock_is_behind_applies_nothing_and_loses_nothing(node: Node) -> None:
    """Its own fault is not the feed's: everything waits until the clock is set."""
    truth = node.now + 300

    async def database_time(_: Connection) -> float:
        return truth

    follower = await node.follower(database_time=database_time)
    await node.feed(node.records((S, node.issuer.record(S, truth))), node.heartbeat(truth), at=node.now)
    before = refused("future")
    for _ in range(2):
        with pytest.raises(QuashError, match=r"follower\.clock"):
            await follower.step()
    assert (node.held(S), node.writer.position(), refused("future")) == (None, None, before)
    node.clock.step(300)
    await follower.step()
    assert node.held(S) is not None


def template(node: Node, **changes: object) -> FeedRow:
    """A signer's row, changed."""
    row = replace(node.issuer.template_row, **changes)  # type: ignore[arg-type]
    return FeedRow(URGENT, "template", 1, layout.encode_template(row))


def issuer(node: Node, **changes: object) -> FeedRow:
    """An issuer's row, changed."""
    return FeedRow(URGENT, "issuer", 1, layout.encode_issuer(replace(node.issuer.row, **changes)))  # type: ignore[arg-type]


def der(node: Node, *usages: object) -> bytes:
    """A signer's certificate by the node's issuer, for `usages`."""
    key = ec.generate_private_key(ec.SECP256R1())
    return node.issuer.delegate(key.public_key(), *usages).public_bytes(Encoding.DER)  # type: ignore[arg-type]


STRANGER = OcspIssuer(1, "tls-dv", 1)
CATALOG = {
    "signer made by another CA": (
        lambda n: template(n, signer_id=2, certificate=STRANGER.template_row.certificate),
        "signer_untrusted",
    ),
    "signer that is a TLS server": (
        lambda n: template(n, signer_id=2, certificate=der(n, ExtendedKeyUsageOID.SERVER_AUTH)),
        "signer_untrusted",
    ),
    "signer that is more than one thing": (
        lambda n: template(
            n, signer_id=2, certificate=der(n, ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH)
        ),
        "signer_untrusted",
    ),
    "signer that is no certificate": (lambda n: template(n, signer_id=2, certificate=b"x"), "signer_untrusted"),
    "signer of an unknown algorithm": (lambda n: template(n, signer_id=2, algorithm="md5"), "signer_untrusted"),
    "signer of an unknown issuer": (lambda n: template(n, signer_id=2, issuer_id=9), "unknown_issuer"),
    "known signer, changed": (lambda n: template(n, certificate=der(n)), "signer_changed"),
    "known issuer with another key": (lambda n: issuer(n, spki=STRANGER.row.spki), "issuer_changed"),
    "known issuer with another name": (lambda n: issuer(n, subject=b"0\0"), "issuer_changed"),
    "issuer with another CA's certificate": (
        lambda n: issuer(n, certificate=STRANGER.row.certificate),
        "issuer_certificate",
    ),
    "issuer without a certificate": (lambda n: issuer(n, certificate=b"x"), "issuer_certificate"),
    "unreadable row": (lambda n: FeedRow(URGENT, "issuer", 1, b"\x01x"), "layout"),
    "unreadable heartbeat": (lambda n: FeedRow(URGENT, "heartbeat", None, b""), "layout"),
    "batch cut short": (
        lambda n: FeedRow(URGENT, "records", None, n.records((S, n.issuer.record(S, n.now))).payload[:-1]),
        "layout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CATALOG)
async def test_a_bad_row_of_the_catalog_is_refused_with_an_alarm(node: Node, name: str) -> None:
    """The node keeps the issuers and signers it had."""
    row, reason = CATALOG[name]
    follower = await node.follower()
    await follower.step()
    known = node.writer.catalog()
    before = refused(reason)
    await node.feed(row(node))
    await follower.step()
    assert refused(reason) == before + 1
    assert node.writer.catalog() == known


async def test_an_issuer_may_get_another_certificate_of_its_key(node: Node) -> None:
    """An issuer is a name with a key: a renewed certificate, path or max-age is taken over."""
    follower = await node.follower()
    await follower.step()
    await node.feed(issuer(node, max_age=60, ocsp_path="elsewhere", max_validity=VALIDITY - 1))
    await node.feed(node.records((S, node.issuer.record(S, node.now))))
    before = refused("validity")
    await follower.step()
    assert node.writer.catalog().issuers[1].max_age == 60
    assert refused("validity") == before + 1  # the new limit counts from then on


async def test_the_issuer_itself_may_sign(node: Node) -> None:
    """A13: a CA that signs its own responses needs no delegation."""
    follower = await node.follower()
    await node.feed(template(node, signer_id=2, certificate=node.issuer.row.certificate))
    await follower.step()
    assert 2 in node.writer.catalog().templates
