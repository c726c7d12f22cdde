"""Certificate profiles as data: one TOML file each in `config/profiles`, held against the rules when it is read (G25).

A file says what a deployment issues; it can only narrow what `quash.runtime.profile_rules` allows. The same rules stand
once more, for the bytes, in the CA signer, which reads no file.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quash.errors import QuashError
from quash.pki import policies
from quash.runtime.profile_rules import broken_rule

SHIPPED: Final = Path(__file__).parents[2] / "config" / "profiles"

Type = Literal["tls", "smime", "operator", "ocsp-signer", "tls-ca", "smime-ca", "root"]
LEAVES: Final = ("tls", "smime")


class ProfileKind(BaseModel):
    """One profile file. Names, not numbers: policies by `quash.pki.policies`, keys as `rsa-2048` or `ec-p256`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The file's, without its suffix."""
    type: Type
    """Which rules apply, and which builder and checks."""
    days: Annotated[int, Field(ge=1)]
    """Longest validity; leaves are also limited by the day of their issuance (D2)."""
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of the subject. For leaves `rsa-<n>` is the smallest modulus, for CAs the one to make."""
    policies: tuple[str, ...] = ()
    """Of a leaf exactly one; of a CA those that its certificates may carry."""
    purposes: tuple[str, ...] = ()
    """Extended key usage."""
    usage: dict[Literal["rsa", "ec"], tuple[str, ...]] = {}
    """Key usage by the subject's kind of key."""
    subject: tuple[str, ...] = ()
    """Attributes that enter from a request; any other stays out."""
    needs: dict[str, tuple[str, ...]] = {}
    """What -> one of these attributes must be there."""
    revocation: tuple[Literal["crl", "ocsp"], ...] = ()
    """What the certificate points to."""
    constraints: tuple[Literal["dns", "email", "directory"], ...] = ()
    """Kinds of name that a CA's nameConstraints must permit (D16, D17); empty: none needed."""

    @model_validator(mode="after")
    def _within_the_rules(self) -> Self:
        if (broken := broken_rule(self)) is not None:
            raise ValueError(f"profile {self.name}: {broken}")
        return self

    @property
    def policy(self) -> str:
        """The OID of a leaf's one policy."""
        return policies.OIDS[self.policies[0]]

    @property
    def document(self) -> str:
        """What linters call such a certificate: the policy decides."""
        return self.policies[0]

    @property
    def logged(self) -> bool:
        """Whether it goes through Certificate Transparency."""
        return self.type == "tls"

    def takes(self, key: str) -> bool:
        """Whether it takes a subject's key, `ec-p256` or `rsa-<bits>`."""
        family, _, size = key.partition("-")
        if family != "rsa":
            return key in self.keys
        return any(each.startswith("rsa-") and int(size) >= int(each[4:]) for each in self.keys)


def read(folder: Path) -> Mapping[str, ProfileKind]:
    """The profiles of a folder, by name. Raises `config.profile` with the file and the rule that it breaks."""
    found = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = ProfileKind.model_validate(tree | {"name": path.stem})
        except ValidationError as error:
            said = "; ".join(each["msg"] for each in error.errors())
            raise QuashError("config.profile", f"{path}: {said}") from None
        except (OSError, ValueError) as error:  # tomllib's are ValueErrors
            raise QuashError("config.profile", f"{path}: {error}") from None
    return found


@functools.cache
def shipped() -> Mapping[str, ProfileKind]:
    """The profiles that Quash comes with."""
    return read(SHIPPED)
