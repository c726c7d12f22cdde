"""Who asks: relying parties, a CDN that fetches CRLs, an operator who revokes meanwhile."""

from __future__ import annotations

import base64
import os
import random
import time
from typing import Any, ClassVar
from urllib.parse import quote

from locust import FastHttpUser, HttpUser, constant, constant_throughput, task

from loadtest.traffic.truth import MALFORMED, UNAUTHORIZED, Truth, WrongAnswerError
from quash.pki.ocsp_request import build_request
from quash.pki.reasons import Reason

UNKNOWN_SHARE = GARBAGE_SHARE = 0.01
POST_SHARE = 0.3
SEEN_WITHIN = 60.0  # seconds for a revocation to be visible on OCSP and in the CRL


class Stranger(FastHttpUser):
    """Knows the truth, and verifies a share of what it is told. The class has both before the first one is made."""

    abstract = True
    truth: ClassVar[Truth]
    share: ClassVar[float]

    def judge(self, response: Any, check: Any, *arguments: Any) -> Any:
        """What `check` finds; marks a request as failed by a wrong answer, which ends the run."""
        try:
            return check(*arguments)
        except WrongAnswerError as error:
            response.failure(error)
            return None


class RelyingParty(Stranger):
    """Asks about certificates, by GET and POST, both hashes; now and then about an unknown one, or nonsense."""

    wait_time = constant_throughput(10)

    @task
    def ask(self) -> None:
        kind = random.random()
        if kind < GARBAGE_SHARE:
            self._expect("garbage", os.urandom(random.randint(1, 80)), MALFORMED)
        elif kind < GARBAGE_SHARE + UNKNOWN_SHARE:
            unknown = self.truth.cert_id(b"\x42" + os.urandom(15))
            self._expect("unknown", build_request(unknown), UNAUTHORIZED)
        else:
            self._ask_about(self.truth.popular())

    def _ask_about(self, serial: bytes) -> None:
        asked = self.truth.cert_id(serial)
        revoked_before = serial in self.truth.reasons
        with self._send(build_request(asked)) as response:
            if response.status_code == 200 and random.random() < self.share:
                self.judge(response, self.truth.check_ocsp, asked, response.content, revoked_before)

    def _expect(self, what: str, der: bytes, body: bytes) -> None:
        with self._send(der) as response:
            if response.status_code == 200:
                self.judge(response, self._same, what, response.content, body)

    def _same(self, what: str, got: bytes, expected: bytes) -> None:
        if got != expected:
            raise WrongAnswerError(f"{what} is answered {got.hex()[:60]}")
        self.truth.tally[f"{what} answered as such"] += 1

    def _send(self, der: bytes) -> Any:
        if random.random() < POST_SHARE:
            headers = {"Content-Type": "application/ocsp-request"}
            body: Any = der  # typed as text
            return self.client.post("", data=body, headers=headers, name="OCSP POST", catch_response=True)
        text = quote(base64.b64encode(der), safe="")
        return self.client.get(f"/{text}", name="OCSP GET", catch_response=True)


class CdnFetcher(Stranger):
    """Fetches the CRL again with the ETag of the one it has."""

    fixed_count = 2
    wait_time = constant_throughput(2)
    etag = ""
    entries: frozenset[bytes] = frozenset()
    """Of the CRL that it has."""

    @task
    def fetch(self) -> None:
        headers, listed = ({"If-None-Match": self.etag} if self.etag else {}), set(self.truth.listed)
        with self.client.get("", headers=headers, name="CRL GET", catch_response=True) as response:
            if response.status_code == 304:
                response.success()
                self.judge(response, self.truth.check_unmodified, self.host, self.entries, listed)
            elif response.status_code == 200:
                self.etag = response.headers.get("ETag", "")
                self.entries = (
                    self.judge(response, self.truth.check_crl, self.host, response.content, listed) or frozenset()
                )


class Operator(HttpUser):
    """Revokes a certificate that is asked for often, and waits until it is seen."""

    fixed_count = 1
    wait_time = constant(1)
    truth: ClassVar[Truth]

    def on_start(self) -> None:
        folder = self.truth.population.operators
        self.client.cert = (str(folder / "operator.pem"), str(folder / "operator.key"))
        self.client.verify = str(folder / "ca.pem")
        self.client.trust_env = False

    @task
    def revoke(self) -> None:
        serial = self.truth.next_to_revoke()
        if serial is None:
            return
        self.truth.revoking.add(serial)
        body = {"issuer": self.truth.population.issuer, "serial": serial.hex(), "reason": "superseded", "wait": True}
        with self.client.post("/v1/revocations", json=body, name="revoke", catch_response=True) as response:
            if response.status_code != 201:
                response.failure(f"{response.status_code}: {response.text}")
                return
            act = response.json()["act_id"]
        self._follow(serial, f"/v1/revocations/{act}")

    def _follow(self, serial: bytes, path: str) -> None:
        """From the moment at which the API has seen it, everybody must."""
        deadline = time.monotonic() + SEEN_WITHIN
        while time.monotonic() < deadline:
            seen = self.client.get(path, name="revocation").json()
            if seen["ocsp_visible_ms"] is not None:
                self.truth.reasons[serial] = int(Reason.superseded)
            if seen["crl_published_ms"] is not None:
                self.truth.listed.add(serial)
                self.truth.tally["revocations seen"] += 1
                return
            time.sleep(0.1)
        with self.client.get(path, name="revocation", catch_response=True) as response:
            response.failure(WrongAnswerError(f"{serial.hex()}: not visible after {SEEN_WITHIN:.0f} s"))
