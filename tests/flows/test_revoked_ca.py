"""What stays up after a CA was revoked, until its certificate ends: answers, OCSP signers, CRLs (B6, C10)."""

from __future__ import annotations

from pathlib import Path

from issuer.signer.deployment import Deployment
from issuer.signer.offline import renew_crl
from quash.pki.reasons import Reason
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store.database import acquire
from tests.support.flows import DAY, HOUR, Key, Site, running, serial_of
from tests.support.initialising import quick_config
from tests.support.postgres import Database

NAME = "tls-dv"


async def revoke_the_ca(site: Site) -> Key:
    """As an operator does: its certificate, then the root's CRL at once (B4)."""
    ca = ("root", serial_of(site.issuer(NAME)))
    await site.revoke(ca, Reason.cessationOfOperation)
    await renew_crl(Deployment(site.config, site.state, site.database.owner, site.clock), "root")
    await site.settle()
    return ca


async def test_a_revoked_ca_goes_on_telling_what_was_revoked_below_it(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """Relying parties that have not seen the root's new CRL are told the truth for weeks, by new OCSP signers too."""
    async with running(database, tmp_path, clock, quick_config(database.config)) as site:
        await site.step()
        certificates = [await site.issue() for _ in range(3)]
        good, before, after = [site.key(each) for each in certificates]
        await site.revoke(before, Reason.superseded)
        await site.settle()
        first_signer = site.node.ask(good).signer
        ca = await revoke_the_ca(site)
        # The root says so, to both kinds of askers, and the CA issues nothing.
        assert site.node.ask(ca).entry == site.listed(ca)
        order = await site.issuance.advance((await site.order(NAME)).id)
        assert (order.state, order.code) == ("refused", "signer.issuer_revoked")
        # Its certificates are not revoked with it (C10 allows that and asks for nothing); more can be.
        assert [site.node.ask(key).word for key in (good, before, after)] == ["good", "revoked", "good"]
        await site.revoke(after, Reason.keyCompromise)
        await site.settle()
        assert site.node.ask(after).entry == site.listed(after)
        for _ in range(18 * 24 // 9):
            await clock.advance(9 * HOUR)
            await site.step()
            assert [site.node.ask(key).word for key in (good, before, after)] == ["good", "revoked", "revoked"]
            assert site.node.ask(good).next_update - site.now > 8 * HOUR
            published = site.crl(site.crl_path(certificates[0]))
            assert published.next_update - site.now > DAY
            assert site.now - published.this_update < DAY, "a CRL each day (B3)"
        assert site.node.ask(good).signer != first_signer, "its OCSP signer was renewed in time (A17)"
        assert site.node.ask((NAME, new_serial())).word == "unauthorized"
        new = await site.new_node()
        await new.step()
        assert [new.ask(key) for key in (ca, good, before, after)] == [
            site.node.ask(key) for key in (ca, good, before, after)
        ]


async def test_a_retired_ca_ends_without_noise(database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """Its last CRL stays where it is, nothing is missed, and all else goes on."""
    async with running(database, tmp_path, clock, quick_config(database.config)) as site:
        await site.step()
        certificate = await site.issue()
        key = site.key(certificate)
        ca = await revoke_the_ca(site)
        ends = site.now + 5 * DAY
        async with acquire(database.owner) as conn:
            await conn.execute(
                "update issuer_certificate set not_after = $1"
                " where issuer_id = (select id from issuer where name = $2)",
                ends,
                NAME,
            )
        for _ in range(16):
            await clock.advance(9 * HOUR)
            await site.step()
            if site.now < ends:
                assert site.node.ask(key).word == "good"
        last = site.crl(site.crl_path(certificate))
        assert last.next_update == ends
        await site.settle()
        assert site.crl(site.crl_path(certificate)) == last
        assert site.node.ask(ca).entry == site.listed(ca)
