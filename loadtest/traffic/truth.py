"""What a deployment must say: the statuses that are known, and the checks of a stranger. No I/O, no Locust."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from quash.errors import QuashError
from quash.pki.certid import CertId, CertIdHash, issuer_hashes
from quash.pki.certificate import read_certificate
from quash.pki.ocsp_reading import verify_response

SKEW = 60  # seconds that clocks may differ by
OLDEST = 86_400  # seconds; an answer is renewed daily at least (G3)
UNAUTHORIZED, MALFORMED = (bytes((0x30, 3, 0x0A, 1, status)) for status in (6, 1))  # RFC 6960 4.2.1


class WrongAnswerError(Exception):
    """Something was said that is not so. One of them fails a run."""


@dataclass
class Population:
    """One issuer's certificates on a deployment. `ocsp` ends with the issuer's path; `ca` is DER; `operators` the
    folder with the operator's client certificate. `serials`: most asked for first. `reasons`: of those revoked."""

    issuer: str
    ocsp: str
    crl: str
    admin: str
    operators: Path
    ca: bytes
    serials: list[bytes]
    reasons: dict[bytes, int]

    @classmethod
    def load(cls, path: Path) -> Self:
        """From the JSON that `save` writes."""
        said: dict[str, Any] = json.loads(path.read_text())
        said["operators"], said["ca"] = Path(said["operators"]), bytes.fromhex(said["ca"])
        said["serials"] = [bytes.fromhex(each) for each in said["serials"]]
        said["reasons"] = {bytes.fromhex(each): reason for each, reason in said["reasons"].items()}
        return cls(**said)

    def save(self, path: Path) -> None:
        said = vars(self) | {"operators": str(self.operators), "ca": self.ca.hex()}
        said["serials"] = [each.hex() for each in self.serials]
        said["reasons"] = {each.hex(): reason for each, reason in self.reasons.items()}
        path.write_text(json.dumps(said))


@dataclass
class Truth:
    """What is known by now. A revocation passes through `revoking` (either answer is right), `reasons` (seen on OCSP
    by the API's own probe) and `listed` (seen in the CRL), and never back. `tally` counts what was verified."""

    population: Population
    reasons: dict[bytes, int] = field(init=False)
    revoking: set[bytes] = field(default_factory=set)
    listed: set[bytes] = field(init=False)
    tally: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.reasons = dict(self.population.reasons)
        self.listed = set(self.reasons)
        fields = read_certificate(self.population.ca)
        self._hashes = {h: issuer_hashes(fields.subject, fields.spki, h) for h in CertIdHash}
        self._ca_key: Any = x509.load_der_x509_certificate(self.population.ca).public_key()
        self._numbers: Counter[str] = Counter()

    def known(self) -> Population:
        """The population as it is now, without those about which two things may be said."""
        serials = [each for each in self.population.serials if each in self.reasons or each not in self.revoking]
        return replace(self.population, serials=serials, reasons=self.reasons)

    def cert_id(self, serial: bytes) -> CertId:
        """By either hash (A20)."""
        h = random.choice(list(CertIdHash))
        return CertId(h, *self._hashes[h], serial)

    def popular(self) -> bytes:
        """A serial by Zipf's law with exponent 1."""
        serials = self.population.serials
        return serials[int(len(serials) ** random.random()) - 1]

    def next_to_revoke(self) -> bytes | None:
        """A serial that is good and that nobody is about to revoke."""
        for _ in range(1000):
            serial = self.popular()
            if serial not in self.reasons and serial not in self.revoking:
                return serial
        return None

    def check_ocsp(self, asked: CertId, body: bytes, revoked_before: bool) -> None:
        """Signature by the issuer's signer, the certificate asked for, times, status: as known when the request left.

        `revoked_before`: whether the revocation was visible before it was asked. Raises WrongAnswerError.
        """
        try:
            parsed = verify_response(body, self.population.ca)
        except QuashError as error:
            raise WrongAnswerError(f"{error.code}: {error.message}: {body.hex()[:60]}") from None
        assert parsed.this_update is not None
        assert parsed.next_update is not None
        now, serial = time.time(), asked.serial
        if parsed.cert_id != asked:
            raise WrongAnswerError(f"asked about {asked}, told about {parsed.cert_id}")
        if not max(parsed.this_update - SKEW, 0) <= now < parsed.next_update or now - parsed.this_update > OLDEST:
            times = f"of {parsed.this_update} until {parsed.next_update}"
            raise WrongAnswerError(f"{serial.hex()}: {times}, and it is {now:.0f}")
        assert parsed.status is not None
        reason = parsed.status.reason
        if revoked_before and reason != self.reasons[serial]:
            raise WrongAnswerError(f"{serial.hex()} is revoked, and its reason is said to be {reason}")
        if reason is not None and serial not in self.reasons and serial not in self.revoking:
            raise WrongAnswerError(f"{serial.hex()} is said to be revoked, and nobody did")
        self.tally["OCSP answers verified"] += 1

    def check_crl(self, url: str, body: bytes, listed: set[bytes]) -> frozenset[bytes]:
        """Signature, times, a number no smaller than any seen, all of `listed` on it; returns the serials on it.

        Raises WrongAnswerError.
        """
        try:
            crl = x509.load_der_x509_crl(body)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except (ValueError, x509.ExtensionNotFound) as error:
            raise WrongAnswerError(f"{url}: {error}") from None
        if not crl.is_signature_valid(self._ca_key):
            raise WrongAnswerError(f"{url}: CRL {number}'s signature does not verify")
        ends = crl.next_update_utc
        if ends is None or not crl.last_update_utc.timestamp() - SKEW <= time.time() < ends.timestamp():
            raise WrongAnswerError(f"{url}: CRL {number} is of {crl.last_update_utc} until {ends}")
        if number < self._numbers[url]:
            raise WrongAnswerError(f"{url}: CRL {number} after {self._numbers[url]}")
        self._numbers[url] = number
        serials = (entry.serial_number for entry in crl)
        entries = frozenset(serial.to_bytes(serial.bit_length() // 8 + 1) for serial in serials)
        self._check_listed(f"{url}: CRL {number}", entries, listed)
        self.tally["CRLs verified"] += 1
        return entries

    def check_unmodified(self, url: str, entries: frozenset[bytes], listed: set[bytes]) -> None:
        """A 304 says that the CRL with those entries is the newest. Raises WrongAnswerError."""
        self._check_listed(f"{url}: the CRL said to be the newest", entries, listed)
        self.tally["CRLs not modified"] += 1

    def _check_listed(self, crl: str, entries: frozenset[bytes], listed: set[bytes]) -> None:
        if missing := listed - entries:
            raise WrongAnswerError(f"{crl} lacks {len(missing)} revoked, as {min(missing).hex()}")
