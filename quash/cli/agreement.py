"""What `quash crl verify` compares: every revocation with the CRLs, and certificates with both OCSP answers.

The database speaks through the admin API, everything else is fetched as a stranger would; the rules are those of the
job runner's samples (`issuer.revocation.agreement`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from issuer.issuance.visible import PublicAnswers
from issuer.revocation.agreement import Disagreement, compare_crl, compare_ocsp
from quash.cli.client import Api
from quash.pki.certificate import read_certificate
from quash.pki.crl import Crl, serial_of
from quash.runtime.clock import SystemClock
from quash.store.statements import Statement

_PAGE = 10_000
_ASKED = 500  # certificates whose answers are asked for side by side
_POINTS = 10  # places in the row of serials that a sample begins at


@dataclass(frozen=True, slots=True)
class Authority:
    """An issuer as strangers know it: DER of its certificate and what stands in it, and its path on the responder."""

    certificate: bytes
    subject: bytes
    spki: bytes
    ocsp_path: str


@dataclass(slots=True)
class Findings:
    """`wrong`: a serial -> what disagrees about it, and since when (Unix seconds) the database says what it says."""

    revoked: int = 0
    asked: int = 0
    wrong: dict[bytes, tuple[list[Disagreement], int]] = field(default_factory=dict)

    def add(self, said: Statement, found: Iterable[Disagreement]) -> None:
        for each in found:
            self.wrong.setdefault(said.serial, ([], said.since))[0].append(each)

    @property
    def newest(self) -> int:
        """When the newest of what disagrees was recorded."""
        return max((since for _, since in self.wrong.values()), default=0)

    def all(self) -> list[Disagreement]:
        return [each for found, _ in self.wrong.values() for each in found]


class Comparison:
    """One issuer against what it publishes; `crls`: its CRLs by path, as fetched."""

    def __init__(self, api: Api, issuer: str, certificate: bytes, responders: tuple[str, ...]) -> None:
        self._api = api
        self._issuer = issuer
        self._certificate = certificate
        self._responders = responders
        self._ocsp_path = ""

    def whole(self, crls: Mapping[str, Crl], asked: int | None) -> Findings:
        """Every revocation with the CRLs, every entry with the database, and `asked` answers (None: all)."""
        found = Findings()
        self._compare_crls(found, crls)
        certificates = self._pages(revoked=False) if asked is None else self._sample(asked)
        asyncio.run(self._compare_ocsp(found, certificates))
        return found

    def again(self, crls: Mapping[str, Crl], serials: list[bytes]) -> Findings:
        """What still disagrees about these serials."""
        found, listed = Findings(), _by_serial(crls, set(serials))
        for start in range(0, len(serials), 1000):
            named = self._ask({"serials": [f"{_number(each):x}" for each in serials[start : start + 1000]]})
            for said in named:
                self._compare_crl(found, said, crls, listed)
            asyncio.run(self._compare_ocsp(found, named))
            self._unknown(found, listed, set(serials[start : start + 1000]) - {each.serial for each in named})
        return found

    def _compare_crls(self, found: Findings, crls: Mapping[str, Crl]) -> None:
        listed, seen = _by_serial(crls), set[bytes]()
        for said in self._pages(revoked=True):
            found.revoked += 1
            seen.add(said.serial)
            self._compare_crl(found, said, crls, listed)
        rest = sorted({serial for _, serial in listed} - seen)
        for start in range(0, len(rest), 1000):
            few = rest[start : start + 1000]
            named = self._ask({"serials": [f"{_number(each):x}" for each in few]})
            for said in named:
                self._compare_crl(found, said, crls, listed)
            self._unknown(found, listed, set(few) - {each.serial for each in named})

    def _compare_crl(
        self, found: Findings, said: Statement, crls: Mapping[str, Crl], listed: Mapping[tuple[str, bytes], bytes]
    ) -> None:
        if said.path is None:
            if said.reason is not None:
                found.add(said, [Disagreement(said.issuer, said.serial, "revoked, but no CRL shows its shard")])
        elif said.path in crls:  # else that CRL's own line says what is wrong with it
            path = said.path
            found.add(said, compare_crl(said, crls[path].this_update, lambda serial: listed.get((path, serial))))

    def _unknown(self, found: Findings, listed: Mapping[tuple[str, bytes], bytes], serials: set[bytes]) -> None:
        for path, serial in listed:
            if serial in serials:
                wrong = Disagreement(self._issuer, serial, f"it is on the CRL {path}, the database does not know it")
                found.wrong[serial] = ([wrong], 0)

    async def _compare_ocsp(self, found: Findings, certificates: Iterable[Statement]) -> None:
        read = read_certificate(self._certificate)
        async with PublicAnswers(self._responders, SystemClock()) as answers:
            for few in _chunks(certificates, _ASKED):
                due = [each for each in few if each.answered and each.not_after >= time.time()]
                known = Authority(self._certificate, read.subject, read.spki, self._ocsp_path)
                heard = await asyncio.gather(*(answers.ask(known, known.certificate, each.serial) for each in due))
                found.asked += len(due)
                for said, each in zip(due, heard, strict=True):
                    found.add(said, compare_ocsp(said, each))

    def _pages(self, *, revoked: bool) -> Iterator[Statement]:
        after: str | None = ""
        while after is not None:
            self._following: str | None = None
            yield from self._ask({"revoked": revoked, "limit": _PAGE, **({"after": after} if after else {})})
            after = self._following

    def _sample(self, count: int) -> list[Statement]:
        """From random serials on, so that each certificate with a random serial may be met; half of it revoked."""
        found: dict[bytes, Statement] = {}
        for revoked in (False, True):
            for after in ("0", *(secrets.token_hex(16) for _ in range(_POINTS - 1))):
                page = self._ask({"revoked": revoked, "limit": max(1, count // (2 * _POINTS)), "after": after})
                found.update({each.serial: each for each in page})
        return list(found.values())

    def _ask(self, body: dict[str, Any]) -> list[Statement]:
        said = self._api.post("/v1/certificates/statements", {"issuer": self._issuer, **body})
        self._ocsp_path, self._following = said["ocsp_path"], said["after"]
        return [
            Statement(issuer_id=0, issuer=self._issuer, **{**each, "serial": bytes.fromhex(each["serial"])})
            for each in said["certificates"]
        ]


def _number(serial: bytes) -> int:
    return int.from_bytes(serial, "big", signed=True)


def _by_serial(crls: Mapping[str, Crl], only: set[bytes] | None = None) -> dict[tuple[str, bytes], bytes]:
    return {
        (path, serial): entry
        for path, crl in crls.items()
        for entry in crl.entries
        if (serial := serial_of(entry)) is not None and (only is None or serial in only)
    }


def _chunks(found: Iterable[Statement], size: int) -> Iterator[list[Statement]]:
    few: list[Statement] = []
    for each in found:
        few.append(each)
        if len(few) == size:
            yield few
            few = []
    yield few
