"""G16, G50: what others saw with our signature is in our record, octet for octet, or somebody must know."""

from __future__ import annotations

from pathlib import Path

import pytest

from issuer.issuance.issue import Logging
from issuer.issuance.seen import compare
from issuer.signer.tbs import tbs_of
from issuer.signer.tbs_writer import write_certificate
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certificate import read_certificate
from tests.support.issuing import SoftwareKey, World, make_csr, private_key
from tests.support.transparency import logs_of


async def verdict(world: World, der: bytes) -> tuple[str, str]:
    async with world.owner.acquire() as conn:
        found = await compare(conn, der)
    return found.issuer, found.verdict


def signed(tbs: bytes, by: str = "tls-dv") -> bytes:
    algorithm = SIGNATURE_ALGORITHMS["ecdsa-p256-sha256"]
    return write_certificate(tbs, algorithm, SoftwareKey(private_key(by)).sign(tbs))


async def test_what_others_saw_is_ours_or_is_told(world: World, tmp_path: Path) -> None:
    """Precertificate and certificate are known; another serial, or other octets, under our very key are not."""
    async with logs_of(tmp_path / "list", world.clock, [await world.certificate_of("root")]) as (client, _):
        issuance = world.issuance(logging=Logging(world.signer.sign_precertificate, client))
        order = await issuance.submit("operator:ann", "tls-dv", make_csr())
        assert (await issuance.finish(order.id, timeout=0)).state == "issued"
    both = [row["der"] for row in await world.fetch("select der from signing_log order by id")]
    for der in both:
        assert await verdict(world, der) == ("tls-dv", "ours")
    tbs, serial = tbs_of(both[1]), read_certificate(both[1]).serial
    assert await verdict(world, signed(tbs.replace(serial, b"\x01" * 16))) == ("tls-dv", "unknown")
    assert await verdict(world, signed(tbs.replace(b"www.example.org", b"www.example.net"))) == ("tls-dv", "other")
    assert await verdict(world, signed(tbs, by="somebody")) == ("", "foreign")
    assert await verdict(world, await world.certificate_of("root")) == ("root", "ours")


async def test_what_is_no_certificate_is_bad_input(world: World) -> None:
    with pytest.raises(QuashError, match=r"seen\.malformed"):
        await verdict(world, b"0\x03\x02\x01\x00")
