"""Reservations for the CA signer: right by default, each part replaceable, so that a test breaks exactly one thing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.authority import authority_of
from issuer.signer.key_ring import KeyRing
from issuer.signer.service import CaSigner
from issuer.signer.tbs_writer import Frame
from quash.errors import QuashError
from quash.keys import KeyHandle
from quash.pki import der
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.crl import tbs_cert_list
from quash.pki.serials import new_serial
from quash.runtime.clock import FakeClock
from quash.store import acts, certificates, crls, issuers
from quash.store.database import Pool
from quash.store.issuers import Issuer
from tests.support.issuing import CRL_BASE, DAY, OCSP_BASE, SoftwareKey, private_key, spki_of

LEAF_KEY = "leaf"
Extensions = dict[str, bytes]
"""Whole extensions by a name that tests use; order counts."""


def alternative_names(*names: str, critical: bool = True) -> bytes:
    general = [der.tlv(0x82, name.encode()) for name in names]
    return write.extension(oids.SUBJECT_ALT_NAME, der.tlv(der.SEQUENCE, *general), critical=critical)


@dataclass
class Leaf:
    """A reservation about to be made: what the TBS says, and what the row says."""

    frame: Frame
    extensions: Extensions
    profile: str
    shard: int | None
    row: dict[str, Any] = field(default_factory=dict)
    mangle: Callable[[bytes], bytes] = bytes

    def set(self, **frame: Any) -> Leaf:
        """Changes the TBS alone: the row keeps what was there before."""
        self.row = {**self._row(), **self.row}
        self.frame = replace(self.frame, **frame)
        return self

    def _row(self) -> dict[str, Any]:
        frame = self.frame
        return {
            "serial": frame.serial,
            "spki_sha256": hashlib.sha256(frame.spki).digest(),
            "not_before": frame.not_before,
            "not_after": frame.not_after,
        }

    @property
    def tbs(self) -> bytes:
        return self.mangle(write.write_tbs(self.frame, *self.extensions.values()))

    @property
    def columns(self) -> dict[str, Any]:
        return {**self._row(), **self.row}


class Desk:
    """A hierarchy in the database, its CA signer in the role that it has in production, and what to ask it for."""

    def __init__(self, owner: Pool, pool: Pool, clock: FakeClock, hierarchy: dict[str, Issuer]) -> None:
        self.owner = owner
        self.pool = pool
        self.clock = clock
        self.hierarchy = hierarchy
        self.signer = self.new_signer()

    def new_signer(self, opener: Callable[[Issuer], KeyHandle] | None = None) -> CaSigner:
        """Another signer process, or the same after a crash."""
        return CaSigner(
            self.pool, KeyRing(opener or (lambda issuer: SoftwareKey(private_key(issuer.name)))), self.clock
        )

    @property
    def now(self) -> int:
        return int(self.clock.now())

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        async with self.owner.acquire() as conn:
            return list(await conn.fetch(sql, *arguments))

    async def certificate_of(self, name: str) -> bytes:
        async with self.owner.acquire() as conn:
            found = await issuers.certificate(conn, self.hierarchy[name].id)
        assert found is not None
        return found.der

    async def key_id(self, name: str) -> bytes:
        return authority_of(self.hierarchy[name], await self.certificate_of(name)).key_id

    async def leaf(self, name: str = "tls-dv", profile: str | None = None) -> Leaf:
        """A DV leaf in shard 1 of `tls-dv`, or an OV leaf of `tls-ov`, as the issuing API makes them."""
        issuer = self.hierarchy[name]
        dv = name == "tls-dv"
        subject = b"\x30\x00" if dv else self.hierarchy["root"].subject
        return Leaf(
            Frame(
                new_serial(),
                SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
                issuer.subject,
                self.now,
                self.now + 199 * DAY - 1,
                subject,
                spki_of(private_key(LEAF_KEY)),
            ),
            {
                "key_usage": write.key_usage(write.DIGITAL_SIGNATURE),
                "extended_key_usage": write.extended_key_usage(oids.SERVER_AUTH),
                "basic_constraints": write.basic_constraints(b"\x30\x00"),
                "authority_key": write.authority_key(await self.key_id(name)),
                "access": write.authority_access(ocsp=f"{OCSP_BASE}/{name}", ca_issuers=f"{CRL_BASE}/{name}.cer"),
                "names": alternative_names("www.example.org", critical=dv),
                "policy": write.policy(oids.POLICY_DV if dv else oids.POLICY_OV),
                "crl": write.crl_distribution_point(f"{CRL_BASE}/{name}/1.crl" if dv else f"{CRL_BASE}/{name}.crl"),
            },
            profile or name,
            1 if dv else None,
        )

    async def reserve(self, leaf: Leaf, name: str = "tls-dv") -> bytes:
        """T1; returns the reserved serial."""
        columns = leaf.columns
        async with self.owner.acquire() as conn:
            await certificates.reserve(
                conn,
                issuer_id=self.hierarchy[name].id,
                profile=leaf.profile,
                tbs=leaf.tbs,
                ski=None,
                shard=leaf.shard,
                bucket=0,
                order_id=None,
                created_at=self.now,
                **columns,
            )
        return bytes(columns["serial"])

    async def act(self) -> int:
        async with self.owner.acquire() as conn:
            return await acts.record(conn, at=self.now, actor="test", action="test", subject={})

    async def stop(self, name: str | None, *, stopped: bool = True) -> None:
        act_id = await self.act()
        async with self.owner.acquire() as conn:
            issuer_id = self.hierarchy[name].id if name else None
            await issuers.set_stopped(conn, issuer_id, stopped=stopped, at=self.now, act_id=act_id)

    async def crl(self, name: str = "tls-dv", scope: str = "1", number: int = 1, **changes: Any) -> bytes:
        """A TBSCertList of a scope, right unless changed by the names of `tbs_cert_list`."""
        issuer = self.hierarchy[name]
        async with self.owner.acquire() as conn:
            found = await crls.find_scope(conn, issuer.id, None if scope == "full" else int(scope))
        assert found is not None
        arguments: dict[str, Any] = {
            "algorithm": SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
            "issuer": issuer.subject,
            "this_update": self.now,
            "next_update": self.now + 4 * DAY - 1,
            "entries": [],
            "authority_key_id": await self.key_id(name),
            "number": number,
            "idp_urls": found.idp_urls,
            "only": "user" if found.idp else None,
        }
        return tbs_cert_list(**{**arguments, **changes})


async def refused(desk: Desk, serial: bytes, name: str = "tls-dv") -> QuashError:
    """The refusal; nothing was logged, so nothing was signed."""
    with pytest.raises(QuashError) as caught:
        await desk.signer.sign_certificate(desk.hierarchy[name].id, serial)
    assert await desk.fetch("select from signing_log") == []
    return caught.value
