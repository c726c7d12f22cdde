"""Where things are kept: the database, object stores, private keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, model_validator

from quash.runtime.config.model import Model


class Database(Model):
    """Where the record of status lives."""

    url: str = ""
    """Of any PostgreSQL >= 15, without user or password; empty: the embedded server in the state folder."""
    owner_url: str = ""
    """For `quash init` alone: connects as a role that may create roles and the database `url` names."""
    owner_password_file: Path | None = None
    """That role's password, where its server asks for one."""
    pool_size: Annotated[int, Field(ge=2, le=100)] = 8

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        """A configuration, and the arguments of a process, are read by many: passwords come from files."""
        for url in (self.url, self.owner_url):
            parts = urlsplit(url)
            if parts.password is not None or "password" in parse_qs(parts.query):
                raise ValueError(
                    "a database URL carries no password: roles' are in the state folder, "
                    "the owner's in database.owner_password_file"
                )
        return self


class S3(Model):
    """An object store that a CDN reads; CRLs go there by conditional requests."""

    bucket: Annotated[str, Field(min_length=1)]
    prefix: str = ""
    """Before every name, without slashes around."""
    region: str = "us-east-1"
    endpoint: str = ""
    """Of a store that is not Amazon's; https, except on this machine."""
    credentials_file: Path | None = None
    """As the AWS command line keeps it, section [default]; empty: the environment or the machine's role."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 30
    """Seconds for one request."""


class Keys(Model):
    """Where private keys are. PEM files are encrypted; their passphrases are read from files."""

    ca_token: Annotated[str, Field(pattern=r"^pkcs11:")] | None = None
    """Where new CA keys are made: the RFC 7512 URI of a token, such as `pkcs11:token=quash-ca?module-path=/path/of.so`
    `&pin-source=file:/path/of/pin`. Empty: PEM files below `keys/ca`. A key that exists stays where it is."""
    ocsp_token: Annotated[str, Field(pattern=r"^pkcs11:")] | None = None
    """The same of OCSP signers' keys; it must be another token, with a PIN of its own (design 2)."""
    ca_passphrase_file: Path | None = None
    """Empty: `secrets/ca.passphrase` in the state folder, made by `init`."""
    ocsp_passphrase_file: Path | None = None
    """Empty: `secrets/ocsp.passphrase`."""
    offline_passphrase_file: Path | None = None
    """Of the root's key; empty: `secrets/offline.passphrase`. Move both away after `init`."""
    ledger_passphrase_file: Path | None = None
    """Of the key that signs the ledger's checkpoints; empty: `secrets/ledger.passphrase`."""
