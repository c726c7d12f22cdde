"""The certificates of test sites (F13): ordered, revoked and renewed as any subscriber would, with keys of their own.

A file holds key, leaf and chain of one site; it is replaced whole. Beside it lie the key of an order that waits, as
`+<order>.waits`, and what was ordered until it may be shown, as `.next`: a crash at any moment costs another attempt
and nothing else, and while one order waits there is no other. Each site is by itself: one that fails is looked at
again after pauses that double, and holds up none of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from quash.errors import Kind as ErrorKind
from quash.errors import QuashError
from quash.pki.rules import DAY
from quash.runtime.clock import Clock
from quash.runtime.config import TestSites
from quash.runtime.state import State

Kind = Literal["valid", "revoked", "expired"]
KINDS: Final[Sequence[Kind]] = ("valid", "revoked", "expired")
_LOOK: Final = 3600.0
_AGAIN: Final = 30.0  # seconds until a site that fails or waits is looked at again
_ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
}


class Authority(Protocol):
    """The CA as a subscriber knows it. Both raise QuashError."""

    async def order(self, profile: str, csr: str) -> str:
        """The order's id. A refusal is raised here, or by `collect`."""
        ...

    async def collect(self, order: str) -> str | None:
        """PEM of the leaf and of its chain; None while an officer or the answers let it wait."""
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
    subject: Mapping[str, str]


def sites_of(config: TestSites) -> Iterator[Site]:
    """Three of each root."""
    for each in config.sites:
        for kind in KINDS:
            profile = each.expired_profile if kind == "expired" and each.expired_profile else each.profile
            yield Site(each.root, kind, f"{kind}.{each.domain}", profile, each.subject)


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
        self._pauses: dict[str, _Pause] = {}
        self.problems: dict[str, Exception] = {}

    async def step(self) -> int:
        """Orders and revokes what is due; returns how many sites have another certificate to show now.

        What went wrong is in `problems`, by host.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.problems = {}
        return sum([await self._try(site) for site in self.sites if self._clock.now() >= self._later(site.host).until])

    @property
    def pause(self) -> float:
        """Seconds until the next step is due."""
        waits = [each.until - self._clock.now() for each in self._pauses.values()]
        return max(1.0, min([_LOOK, *waits]))

    def file(self, site: Site) -> Path:
        """PEM of key, leaf and chain, once there is any."""
        return self._folder / f"{site.host}.pem"

    def shown(self, site: Site) -> bool:
        """Whether the site's certificate is what its name says: one that is to expire is not shown before."""
        leaf = _leaf(self.file(site))
        return leaf is not None and (site.kind != "expired" or self._ended(leaf))

    async def _try(self, site: Site) -> bool:
        try:
            changed = await self._keep(site)
        except (QuashError, OSError) as error:
            self.problems[site.host] = error
            self._pauses[site.host] = self._later(site.host).doubled(self._clock.now())
            return False
        if self._waiting(site) is None:
            self._pauses.pop(site.host, None)
        else:
            self._pauses[site.host] = _Pause(_AGAIN, self._clock.now() + _AGAIN)
        return changed

    def _later(self, host: str) -> _Pause:
        return self._pauses.get(host, _Pause(0, 0))

    async def _keep(self, site: Site) -> bool:
        following = self.file(site).with_suffix(".next")
        if _leaf(following) is None:
            if self._waiting(site) is None:
                if not self._due(site, _leaf(self.file(site))):
                    return False
                await self._order(site)
            if not await self._collect(site, following):
                return False
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

    def _waiting(self, site: Site) -> Path | None:
        """The key of the site's order that has no certificate yet; its name tells which order."""
        return next(self._folder.glob(f"{site.host}+*.waits"), None)

    async def _order(self, site: Site) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(site.host)])
        subject = x509.Name([x509.NameAttribute(_ATTRIBUTES[name], value) for name, value in site.subject.items()])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, True)
        csr = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        order = await self._authority.order(site.profile, csr)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._write(self._folder / f"{site.host}+{order}.waits", secret)

    async def _collect(self, site: Site, following: Path) -> bool:
        """Whether what was ordered is there. An order that was refused, or that nobody knows, is given up."""
        waiting = self._waiting(site)
        assert waiting is not None  # noqa: S101 - it was asked for, or there already
        try:
            pem = await self._authority.collect(waiting.stem.partition("+")[2])
        except QuashError as error:
            if error.kind in (ErrorKind.REFUSED, ErrorKind.NOT_FOUND):
                waiting.unlink()
            raise
        if pem is None:
            return False
        self._write(following, waiting.read_bytes() + pem.encode())
        waiting.unlink()
        return True

    def _write(self, file: Path, body: bytes) -> None:
        draft = file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        self._state.write_secret(draft, body)
        draft.replace(file)


@dataclass(frozen=True, slots=True)
class _Pause:
    """How long the last pause of a site that fails was, and when it is over."""

    seconds: float
    until: float

    def doubled(self, now: float) -> _Pause:
        seconds = min(max(_AGAIN, self.seconds * 2), DAY)
        return _Pause(seconds, now + seconds)


def _leaf(file: Path) -> x509.Certificate | None:
    """Of a file that is missing or damaged None: another one is ordered then."""
    if not file.exists():
        return None
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0]
    except ValueError:
        return None


def _certificates(file: Path) -> str:
    """The first certificate alone: the key stays here."""
    leaf = _leaf(file)
    return "" if leaf is None else leaf.public_bytes(Encoding.PEM).decode()
