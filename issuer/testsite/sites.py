"""The certificates of test sites (F13): ordered, revoked and renewed as any subscriber would, with keys of their own.

A file holds key, leaf and chain of one site; it is replaced whole. What was ordered lies beside it as `.next` until it
may be shown, so that a crash at any moment costs another attempt and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quash.pki.rules import DAY
from quash.runtime.clock import Clock
from quash.runtime.config import TestSites
from quash.runtime.state import State

Kind = Literal["valid", "revoked", "expired"]
KINDS: Final[Sequence[Kind]] = ("valid", "revoked", "expired")


class Authority(Protocol):
    """The CA as a subscriber knows it. Both raise QuashError."""

    async def order(self, profile: str, csr: str) -> str:
        """PEM of the leaf and of its chain."""
        ...

    async def revoke(self, certificate: str) -> None:
        """Revokes the PEM certificate; again, it changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """One site; `host` is what its certificate is for, `profile` what it is ordered as."""

    root: str
    kind: Kind
    host: str
    profile: str


def sites_of(config: TestSites) -> Iterator[Site]:
    """Three of each root."""
    for each in config.sites:
        for kind in KINDS:
            profile = each.expired_profile if kind == "expired" and each.expired_profile else each.profile
            yield Site(each.root, kind, f"{kind}.{each.domain}", profile)


class TestCertificates:
    """Keeps each site's certificate what it shall be. One process at a time."""

    __test__ = False

    def __init__(self, config: TestSites, state: State, authority: Authority, clock: Clock) -> None:
        self.sites = tuple(sites_of(config))
        self._renew = config.renew_days * DAY
        self._state = state
        self._folder = state.root / "testsite"
        self._authority = authority
        self._clock = clock

    async def step(self) -> int:
        """Orders and revokes what is due; returns how many sites have another certificate to show now."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return sum([await self._keep(site) for site in self.sites])

    def file(self, site: Site) -> Path:
        """PEM of key, leaf and chain, once there is any."""
        return self._folder / f"{site.host}.pem"

    def shown(self, site: Site) -> bool:
        """Whether the site's certificate is what its name says: one that is to expire is not shown before."""
        leaf = _leaf(self.file(site))
        return leaf is not None and (site.kind != "expired" or self._ended(leaf))

    async def _keep(self, site: Site) -> bool:
        following = self.file(site).with_suffix(".next")
        if _leaf(following) is None:
            if not self._due(site, _leaf(self.file(site))):
                return False
            await self._order(site, following)
        if site.kind == "revoked":
            await self._authority.revoke(_certificates(following))
        following.replace(self.file(site))
        return True

    def _due(self, site: Site, leaf: x509.Certificate | None) -> bool:
        """Expired ones stay; the others are renewed each `renew_days`, and when two thirds of their life are over."""
        if leaf is None:
            return True
        if site.kind == "expired":
            return False
        began, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        return self._clock.now() >= min(began + self._renew, began + (ends - began) * 2 / 3)

    def _ended(self, leaf: x509.Certificate) -> bool:
        return leaf.not_valid_after_utc.timestamp() < self._clock.now()

    async def _order(self, site: Site, file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(site.host)])
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, True)
        csr = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        pem = await self._authority.order(site.profile, csr)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        draft = file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        self._state.write_secret(draft, secret + pem.encode())
        draft.replace(file)


def _leaf(file: Path) -> x509.Certificate | None:
    if not file.exists():
        return None
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


def _certificates(file: Path) -> str:
    """The first certificate alone: the key stays here."""
    leaf = _leaf(file)
    return "" if leaf is None else leaf.public_bytes(Encoding.PEM).decode()
