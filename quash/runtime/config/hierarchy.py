"""CAs and what they issue, and what the rules say of both (D14-D17, G25)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from quash.errors import QuashError
from quash.pki import policies
from quash.pki.names import build_name, check_country
from quash.pki.rules import SHORT_LIVED
from quash.runtime import profiles
from quash.runtime.config.model import DAY, Model, Name, Nonce
from quash.runtime.profiles import ProfileKind

KeyKind = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]


class OcspSigner(Model):
    """The delegated OCSP signer of one issuer (A13-A17)."""

    key: KeyKind = "ec-p256"
    days: Annotated[int, Field(ge=1, le=400)] = 30
    """Online issuers: 30 days; the root's is 13 months, since its key is offline."""


class Permitted(Model):
    """Name constraints of a sub-CA (D16, D17, G17, G18); addresses are excluded wherever DNS names are constrained."""

    dns: tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")], ...] = ()
    """Names that are one of these or below one."""
    email: tuple[Annotated[str, Field(pattern=r"^\.?[a-z0-9-]+(\.[a-z0-9-]+)*$")], ...] = ()
    """Mailboxes at these hosts; with a leading dot at any host below (SBR 7.1.5)."""
    directory: tuple[dict[Literal["C", "ST", "L", "O"], str], ...] = ()
    """Subjects that begin so. Each has a C at least: an empty name, of which every subject is one, permits all."""

    @field_validator("directory")
    @classmethod
    def _bound(cls, names: tuple[dict[str, str], ...]) -> tuple[dict[str, str], ...]:
        for each in names:
            if "C" not in each:
                raise ValueError(
                    "a permitted directory name has a C: without, it permits what it should not (D16, D17)"
                )
            try:
                build_name(each)
                check_country(each["C"])
            except QuashError as error:
                raise ValueError(f"permitted directory name: {error.message} (D16, D17)") from None
        return names

    @property
    def kinds(self) -> set[str]:
        """Which of the three say anything."""
        return {kind for kind in ("dns", "email", "directory") if getattr(self, kind)}


class Issuer(Model):
    """One CA of the hierarchy that `quash init` makes."""

    name: Name
    kind: Literal["root", "sub-ca"]
    profile: Name | None = None
    """Of `config/profiles`: what the rules say of such a CA; empty: `root` or `sub-ca`."""
    parent: Name | None = None
    key: KeyKind
    subject: dict[Literal["C", "O", "CN"], str]
    """C, O and CN; OU cannot be written (G4)."""
    days: Annotated[int, Field(ge=1, le=9132)]
    """D14: a root 2922 to 9132 days."""
    shards: Annotated[int, Field(ge=0, le=4096)] = 0
    """CRL shards of its certificates; 0: one full CRL."""
    max_age: Annotated[int, Field(ge=1, le=3600)] = 1800
    """Seconds that caches may keep an OCSP answer (A36, G1)."""
    nonce: Nonce = "ignore"
    """`sign`: whoever sends a nonce gets an OCSP answer of its own, from no cache (A27)."""
    policy: tuple[str, ...] = ()
    """Of a sub-CA: what its certificates are, by the names of `quash.pki.policies`; for TLS one alone (D15)."""
    path_length: Annotated[int, Field(ge=0, le=2)] = 0
    """CAs that may stand below a sub-CA before a leaf."""
    permitted: Permitted = Permitted()
    ocsp_signer: OcspSigner = OcspSigner()

    @field_validator("policy", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else () if value is None else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.subject) != {"C", "O", "CN"}:
            raise ValueError(f"issuer {self.name}: subject needs C, O and CN (D14, D15)")
        try:
            build_name(dict(self.subject.items()))
            check_country(self.subject["C"])
        except QuashError as error:
            raise ValueError(f"issuer {self.name}: subject: {error.message} (D13, D14, D15)") from None
        if (self.kind == "root") != (self.parent is None):
            raise ValueError(f"issuer {self.name}: a root has no parent, a sub-ca has one")
        return self

    @property
    def profile_name(self) -> str:
        """The profile that it has, said or not."""
        return self.profile or self.kind


class Profile(Model):
    """What an order names: an issuer and the kind of leaf it makes. It can only narrow that kind (G25)."""

    name: Name
    issuer: Name
    kind: Name
    """Of `config/profiles`."""
    days: Annotated[int, Field(ge=1)] | None = None
    """Empty: those of its kind. Limited again at issuance by the dated table (D2, D-4)."""
    short_lived: bool = False
    """Without CRLDP and OCSP: nobody need revoke what ends within 7 days (D4)."""
    suffixes: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    """Names must be one of these or below one; empty: any (G18)."""
    countries: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = ()
    """C of the subject must be one of these; empty: any (G18)."""

    @field_validator("countries")
    @classmethod
    def _known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for each in codes:
            try:
                check_country(each)
            except QuashError as error:
                raise ValueError(f"countries: {error.message} (G18)") from None
        return codes

    def check(self, kind: ProfileKind | None) -> None:
        """Raises ValueError unless it narrows its kind."""
        if kind is None or kind.type not in profiles.LEAVES:
            raise ValueError(f"profile {self.name}: {self.kind} is no kind of leaf in config/profiles")
        days = self.days or kind.days
        if days > kind.days:
            raise ValueError(f"profile {self.name}: {self.kind} allows {kind.days} days")
        if self.short_lived and (kind.type != "tls" or days * DAY > SHORT_LIVED):
            raise ValueError(f"profile {self.name}: short-lived is TLS of at most {SHORT_LIVED // DAY} days (D4)")
        if self.countries and "C" not in kind.subject:
            raise ValueError(f"profile {self.name}: a {self.kind} certificate names no country (D5)")


def check_ca(issuer: Issuer, kind: ProfileKind | None) -> None:
    """Raises ValueError unless the CA narrows its profile."""

    def refuse(why: str) -> ValueError:
        return ValueError(f"issuer {issuer.name}: {why}")

    if kind is None or (kind.type == "root") != (issuer.kind == "root") or kind.type in profiles.LEAVES:
        raise refuse(f"{issuer.profile_name} is no profile of a {issuer.kind} in config/profiles")
    if issuer.key not in kind.keys:
        raise refuse(f"{issuer.profile_name} has a key of {', '.join(kind.keys)} (D14, D51)")
    if issuer.days > kind.days:
        raise refuse(f"{issuer.profile_name} lasts {kind.days} days at most (D14, D15)")
    if not set(issuer.policy) <= set(kind.policies) or (issuer.kind == "sub-ca") != bool(issuer.policy):
        raise refuse(f"policy is of {', '.join(kind.policies) or 'no root'} (D15, D17)")
    if len(issuer.policy) > 1 and (kind.type == "tls-ca" or policies.ANY in issuer.policy):
        raise refuse("one TLS policy, or any alone (D15)")
    wanted = {"tls-ca": {"dns", "directory"}, "smime-ca": {"email", "directory"}}.get(kind.type, set())
    if issuer.permitted.kinds not in (wanted, set() if not kind.constraints else wanted):
        raise refuse(f"permitted has {' and '.join(sorted(wanted)) or 'nothing'} (D16, D17)")


def check_signer(issuer: Issuer, kind: ProfileKind) -> None:
    signer = issuer.ocsp_signer
    if signer.days > kind.days or not kind.takes(signer.key):
        raise ValueError(f"issuer {issuer.name}: an OCSP signer has {kind.days} days, a key of {', '.join(kind.keys)}")


def check_below(issuer: Issuer, by_name: Mapping[str, Issuer]) -> None:
    parent = by_name.get(issuer.parent or "")
    if parent is None:
        raise ValueError(f"issuer {issuer.name}: parent {issuer.parent} is not configured")
    if parent.kind == "sub-ca" and (parent.path_length <= issuer.path_length or parent.permitted.kinds):
        raise ValueError(f"issuer {issuer.name}: {parent.name} has no path_length left, or constrains names (D15)")
    above, seen = parent, {issuer.name}
    while above.parent is not None and above.name not in seen:
        seen.add(above.name)
        above = by_name.get(above.parent, issuer)
    if above.kind != "root":
        raise ValueError(f"issuer {issuer.name}: there is no root above it")


def check_offers(issuer: Issuer, kind: ProfileKind) -> None:
    """A leaf's policy is one that its issuer carries (D15)."""
    if issuer.kind != "root" and issuer.path_length:
        raise ValueError(f"issuer {issuer.name}: CAs stand below it, so it issues no leaves")
    if issuer.policy and not {kind.policies[0], policies.ANY} & set(issuer.policy):
        raise ValueError(f"issuer {issuer.name}: it is for {', '.join(issuer.policy)}, not for {kind.name} (D15, G18)")
