"""What every section is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

HOUR = 3600
DAY = 24 * HOUR

Port = Annotated[int, Field(ge=0, le=65535)]
# An issuer's name is also its OCSP path: lower case, so it never begins as the base64 of a request does, with `M`.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
# Certificates name their services by plain http alone (B17, D7); A32 keeps a GET of OCSP within 255 octets.
HttpUrl = Annotated[str, Field(pattern=r"^(http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*/?)?$")]
Nonce = Literal["ignore", "sign"]


class Model(BaseModel):
    """Frozen; unknown keys are errors, so that a misspelt limit never goes unnoticed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listener(Model):
    """A TCP address."""

    host: str = "127.0.0.1"
    port: Port
