"""Why a CA must revoke, how soon and with which reason: BR 4.9.1.1, BR 4.9.1.2 and MS 2.1.13 as data.

A case's reason is its trigger's, so 1, 4 and 9 stand for these situations alone (C13). S/MIME certificates have the
same triggers and times (C22).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from quash.errors import QuashError
from quash.pki.reasons import Reason
from quash.pki.rules import DAY

PICK_UP: Final = 2 * 3600
"""Seconds until a person has picked up what the public reported (G39)."""
PRELIMINARY_REPORT: Final = DAY
"""Seconds from the receipt of a problem report until subscriber and reporter have a preliminary one (C6)."""

_NONE, _KEY = Reason.unspecified, Reason.keyCompromise
_SUPERSEDED, _WITHDRAWN, _CEASED = Reason.superseded, Reason.privilegeWithdrawn, Reason.cessationOfOperation


@dataclass(frozen=True, slots=True)
class Trigger:
    """`seconds`: from the receipt until the revocation is published (C5). `reason` unspecified: left out (B11)."""

    name: str
    rule: str
    seconds: int
    reason: Reason
    text: str


def _rows(prefix: str, rule: str, seconds: int, *rows: tuple[str, Reason, str]) -> dict[str, Trigger]:
    return {f"{prefix}-{n}": Trigger(f"{prefix}-{n}", f"{rule} ({n})", seconds, why, text) for n, why, text in rows}


TRIGGERS: Final[Mapping[str, Trigger]] = MappingProxyType(
    {
        # Not judged yet: the shortest clock runs until a person says which ground it is.
        "report": Trigger("report", "BR 4.9.5", DAY, _NONE, "a problem report that nobody has judged yet"),
        **_rows(  # C1
            "br",
            "BR 4.9.1.1",
            DAY,
            ("1", _NONE, "the subscriber asks in writing, without a reason"),
            ("2", _WITHDRAWN, "the original request was not authorised"),
            ("3", _KEY, "evidence that the private key is compromised"),
            ("4", _KEY, "a method computes the private key from the public one"),
            ("5", _SUPERSEDED, "validation of a domain, IP address or CAA cannot be relied on"),
        ),
        **_rows(  # C2
            "br",
            "BR 4.9.1.1",
            5 * DAY,
            ("6", _SUPERSEDED, "key size or parameters do not comply"),
            ("7", _WITHDRAWN, "the certificate was misused"),
            ("8", _WITHDRAWN, "the subscriber violated its agreement"),
            ("9", _CEASED, "a name may no longer be used"),
            ("10", _WITHDRAWN, "a wildcard was used for a fraudulent name"),
            ("11", _WITHDRAWN, "material change of what the certificate says"),
            ("12", _SUPERSEDED, "not issued according to BR, CP or CPS"),
            ("13", _WITHDRAWN, "what the certificate says is inaccurate"),
            ("14", _NONE, "the CA's right to issue ends"),
            ("15", _NONE, "CP or CPS require it for another reason"),
            ("16", _KEY, "the method of key generation is flawed or exposes the key"),
        ),
        **_rows(  # C3
            "sub-ca",
            "BR 4.9.1.2",
            7 * DAY,
            ("1", _CEASED, "the subordinate CA asks in writing"),
            ("2", _WITHDRAWN, "the original request was not authorised"),
            ("3", _KEY, "evidence that the CA's key is compromised or does not comply"),
            ("4", _WITHDRAWN, "the certificate was misused"),
            ("5", _SUPERSEDED, "not issued according to BR, CP or CPS"),
            ("6", _WITHDRAWN, "what the certificate says is inaccurate"),
            ("7", _CEASED, "a CA ceases operations without revocation support"),
            ("8", _CEASED, "a CA's right to issue ends"),
            ("9", _SUPERSEDED, "CP or CPS require it"),
        ),
        "microsoft": Trigger("microsoft", "MS 2.1.13", DAY, _WITHDRAWN, "Microsoft gives notice"),  # C7
    }
)


def find_trigger(name: str) -> Trigger:
    """Raises `case.trigger_unknown`."""
    trigger = TRIGGERS.get(name)
    if trigger is None:
        raise QuashError("case.trigger_unknown", f"no trigger {name!r}: one of {', '.join(TRIGGERS)}")
    return trigger
