"""Before anything is signed: does the database hold all that the published CRLs show (C16, design section 5, Trust)?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from quash.errors import QuashError
from quash.pki import crl
from quash.pki.serials import format_serial, new_serial
from responder.presign.published import NAMED


def publish(
    world: Any,
    authority: Any,
    serials: list[bytes],
    *,
    by: Any = None,
    idp_urls: tuple[str, ...] = (),
    lasts: int = 86_400,
) -> Path:
    """Writes a CRL as the CRL builder does, `lasts` seconds before its nextUpdate."""
    key = world.memory_key((by or authority).key)
    tbs = crl.tbs_cert_list(
        algorithm=key.algorithm,
        issuer=authority.certificate.subject.public_bytes(),
        this_update=min(world.now, world.now + lasts),
        next_update=world.now + lasts,
        entries=[crl.entry(serial, world.now, 1) for serial in serials],
        authority_key_id=x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key()).digest,
        number=1,
        idp_urls=idp_urls,
        only=None,
    )
    path: Path = world.crl_folder / authority.name / "full.crl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(crl.certificate_list(tbs, key.algorithm, key.sign(tbs)))
    return path


async def refusal(world: Any) -> QuashError:
    with pytest.raises(QuashError) as error:
        await (await world.presigner()).step()
    assert await world.database.owner.fetchval("select count(*) from feed") == 0
    return error.value


async def refused(world: Any) -> str:
    return (await refusal(world)).code


async def test_signs_when_every_entry_is_revoked(world: Any) -> None:
    """The published CRLs of all issuers agree with the database: the presigner starts."""
    first, second = await world.authority(), await world.authority("tls-ov")
    for authority in (first, second):
        serial = await world.issue(authority)
        await world.revoke(authority, serial)
        publish(world, authority, [serial])
    assert await (await world.presigner()).step() > 0


async def test_refuses_when_a_revocation_is_lost(world: Any) -> None:
    """A restored backup that misses one published revocation: nothing is signed until it is back."""
    authority = await world.authority()
    kept, lost = await world.issue(authority), await world.issue(authority)
    await world.revoke(authority, kept)
    publish(world, authority, [kept, lost])
    told = await refusal(world)
    assert told.code == "presign.revocations_lost"
    assert format_serial(lost) in told.message
    assert format_serial(kept) not in told.message
    await world.revoke(authority, lost)
    await (await world.presigner()).step()
    assert (await world.cache())[authority.id, lost].version == 1


@pytest.mark.parametrize(
    ("stands", "signs"),
    [((4, 0), False), ((1, 1), False), ((4, -1), False), ((1, 0), True), ((1, -1), True)],
    ids=["another reason", "later", "another reason, earlier", "the same", "earlier"],
)
async def test_lost_upgrade(world: Any, stands: tuple[int, int], signs: bool) -> None:
    """A restored backup may know of a revocation and not of its upgrade to keyCompromise, or of its date (B25, A26).

    More than was published may stand: an upgrade shows in OCSP before it does in a CRL.
    """
    authority = await world.authority()
    serial = await world.issue(authority)
    reason, since = stands
    await world.revoke(authority, serial, reason, at=world.now + since)
    publish(world, authority, [serial])  # with keyCompromise, now
    if signs:
        assert await (await world.presigner()).step() > 0
        return
    told = await refusal(world)
    assert told.code == "presign.revocations_lost"
    assert format_serial(serial) in told.message
    await world.revoke(authority, serial, 1, at=world.now)
    await (await world.presigner()).step()
    assert (await world.cache())[authority.id, serial].reason == 1


async def test_tells_of_all_that_is_missing(world: Any) -> None:
    """Of every CRL: how many there are, and the first ones by issuer, serial and file."""
    first, second = await world.authority(), await world.authority("tls-ov")
    publish(world, first, [new_serial() for _ in range(NAMED)])
    (last,) = serials = [new_serial()]
    publish(world, second, serials)
    told = (await refusal(world)).message
    assert f"show {NAMED + 1} revocations" in told
    assert told.count("tls-dv/full.crl") == NAMED
    assert told.endswith(" and 1 more")
    assert format_serial(last) not in told


async def test_refuses_an_entry_of_a_serial_nobody_knows(world: Any) -> None:
    """The certificate itself may be what the restored database lost."""
    authority = await world.authority()
    publish(world, authority, [new_serial()])
    assert await refused(world) == "presign.revocations_lost"


async def test_another_issuers_revocation_does_not_count(world: Any) -> None:
    """Serials are unique per issuer: the same serial revoked at another one is no excuse."""
    first, second = await world.authority(), await world.authority("tls-ov")
    serial = await world.issue(first)
    await world.revoke(first, serial)
    publish(world, second, [serial])
    assert await refused(world) == "presign.revocations_lost"


@pytest.mark.parametrize("damage", ["cut", "signed by another", "empty"])
async def test_refuses_a_damaged_crl(world: Any, damage: str) -> None:
    """A file that is none of our CRLs could hide a lost revocation, so it stops the start too."""
    authority = await world.authority()
    other = await world.authority("tls-ov")
    path = publish(world, authority, [], by=other if damage == "signed by another" else None)
    if damage != "signed by another":
        path.write_bytes(path.read_bytes()[:-1] if damage == "cut" else b"")
    assert await refused(world) == ("presign.foreign_crl" if damage == "signed by another" else "crl.malformed")
