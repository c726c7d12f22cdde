"""Reserved certificate policies of the CA/Browser Forum by the names that configurations use (D7, D15, D49)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

ANY: Final = "any"
TLS: Final[Mapping[str, str]] = MappingProxyType({"dv": "2.23.140.1.2.1", "ov": "2.23.140.1.2.2"})
# Validation level, generation; the legacy generation is dead since 2025-07-15, individual validation is not ours (G46).
EMAIL: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"smime-{level}-{generation}": f"2.23.140.1.5.{arc}.{form}"
        for arc, level in ((1, "mailbox"), (2, "organization"), (3, "sponsor"))
        for form, generation in ((2, "multipurpose"), (3, "strict"))
    }
)
OIDS: Final[Mapping[str, str]] = MappingProxyType({**TLS, **EMAIL, ANY: "2.5.29.32.0"})
NAMES: Final[Mapping[str, str]] = MappingProxyType({oid: name for name, oid in OIDS.items()})
