"""Flow 1 with precertificates and logs: T1, T2, T3, and what holds when it is interrupted between any two steps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509

from issuer.checks.findings import Finding, Report
from issuer.checks.lint import LintGate
from issuer.checks.workers import Inline
from issuer.ct.double import LogDouble
from issuer.ct.main import main as serve_logs
from issuer.ct.sct import decode_list
from issuer.ct.submit import CtLogs
from issuer.ct.tbs import plain
from issuer.issuance.issue import Issuance
from issuer.issuance.means import Logging
from quash.errors import Kind, QuashError
from quash.pki.reasons import Reason
from quash.runtime.clock import FakeClock
from quash.runtime.config import Config, Lint
from quash.runtime.process import Process
from quash.store import acts, blocked_keys, revocations
from quash.store.issuers import Issuer
from quash.store.revocations import Revocation
from quash.store.roles import ISSUING
from tests.support.issuing import OV_SUBJECT, World, make_csr
from tests.support.transparency import logs_of

POINTS = ("accept", "reserve", "presign", "precommit", "log", "final", "sign", "commit", "release")


class ProcessEndedError(Exception):
    """The process ends here: nothing behind this line runs."""


def issuance(world: World, client: CtLogs, **more: Any) -> Issuance:
    return world.issuance(logging=Logging(world.signer.sign_precertificate, client), **more)


@pytest.mark.parametrize("profile", ["tls-dv", "tls-ov"])
async def test_an_order_is_logged_before_it_is_signed(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]], profile: str
) -> None:
    """E6, E7, D18, D47, G44: three verified SCTs, both forms linted clean by pkilint, both logged by the CA signer."""
    client, doubles = logs
    use_case = issuance(world, client, linting=LintGate(Lint(level="notice"), Inline()))
    order = await use_case.submit("operator:ann", profile, make_csr(subject=OV_SUBJECT if profile == "tls-ov" else ()))
    order = await use_case.finish(order.id, timeout=0)
    assert (order.state, order.code, order.detail) == ("issued", None, None)
    (row,) = await world.fetch("select * from certificate")
    assert (row["state"], row["tbs"]) == ("issued", None)
    final = x509.load_der_x509_certificate(row["der"])
    # E10, E11: SCTs stand in RFC 6962's extension alone, neither in that of RFC 9162 nor for OCSP.
    extensions = {each.oid.dotted_string for each in final.extensions}
    assert extensions & {"1.3.6.1.4.1.11129.2.4.2", "1.3.6.1.4.1.11129.2.4.5", "1.3.101.75"} == {
        "1.3.6.1.4.1.11129.2.4.2"
    }
    signed = await world.fetch("select kind, der from signing_log order by id")
    assert [each["kind"] for each in signed] == ["precertificate", "certificate"]
    precertificate = x509.load_der_x509_certificate(signed[0]["der"])
    assert plain(precertificate.tbs_certificate_bytes) == final.tbs_precertificate_bytes
    scts = final.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps).value
    assert {each.log_id for each in scts} == {double.log_id for double in doubles.values()}
    linted = await world.fetch("select document, findings, refused from lint_result order by id")
    kind = profile.removeprefix("tls-")
    assert [tuple(each) for each in linted] == [
        (f"{kind}-precertificate", [], False),
        (f"{kind}-certificate", [], False),
    ]
    assert len(await world.fetch("select from outbox")) == 1  # T2; T3 changes nothing of what OCSP says


async def test_the_public_knows_the_serial_before_a_log_does(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]]
) -> None:
    """A7, A8: nothing is submitted while the precertificate's OCSP answers are not out; then the order goes on."""
    client, doubles = logs
    out = False

    class Answers:
        async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
            return out

    use_case = issuance(world, client, answers=Answers())
    order = await use_case.submit("operator:ann", "tls-dv", make_csr())
    assert (await use_case.finish(order.id, timeout=0)).state == "pending"
    assert not any(double.entries for double in doubles.values())
    (row,) = await world.fetch("select state, tbs, der from certificate")
    assert (row["state"], row["tbs"]) == ("precertificate", None)
    out = True
    await use_case.step()
    assert [each["state"] for each in await world.fetch("select state from certificate_order")] == ["issued"]


def _ending_at(world: World, client: CtLogs, point: str) -> Issuance:
    async def passed(step: str) -> None:
        if step == point:
            raise ProcessEndedError

    return issuance(world, client, passed=passed)


async def _suffer(world: World, client: CtLogs, point: str, *, whole: bool) -> None:
    """`whole`: as a client's order goes, on one connection as far as T2."""
    use_case = _ending_at(world, client, point)
    with contextlib.suppress(ProcessEndedError, QuashError):
        if whole:
            await use_case.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)
        else:
            order = await use_case.submit("operator:ann", "tls-dv", make_csr())
            await use_case.advance(order.id)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("point", POINTS)
async def test_after_a_crash_the_order_goes_on_with_its_serial(
    world: World, database: Any, logs: tuple[CtLogs, dict[str, LogDouble]], point: str, *, whole: bool
) -> None:
    """E8: whatever step was the last, one serial, one precertificate, one certificate that matches it."""
    client, _ = logs
    await _suffer(world, client, point, whole=whole)
    before = await world.fetch("select serial from certificate")
    restarted = issuance(world, client, pool=await database.pool(ISSUING))
    for _ in range(2):
        await restarted.step()
    (order,) = await world.fetch("select state, code, serial from certificate_order")
    assert (order["state"], order["code"]) == ("issued", None)
    (row,) = await world.fetch("select serial, state, der from certificate")
    assert [each["serial"] for each in before] in ([], [order["serial"]])
    signed = {each["kind"]: each["der"] for each in await world.fetch("select kind, der from signing_log")}
    assert len(await world.fetch("select from signing_log")) == 2
    assert row["der"] == signed["certificate"]
    both = [x509.load_der_x509_certificate(signed[kind]) for kind in ("precertificate", "certificate")]
    assert plain(both[0].tbs_certificate_bytes) == both[1].tbs_precertificate_bytes
    assert await restarted.step() == 0


@pytest.mark.parametrize("point", POINTS[:-2])
async def test_an_order_left_for_long_is_refused_and_its_serial_revoked(
    world: World, database: Any, clock: FakeClock, logs: tuple[CtLogs, dict[str, LogDouble]], point: str
) -> None:
    """A8, E8: a precertificate without a certificate is answered: revoked, never silent."""
    client, _ = logs
    await _suffer(world, client, point, whole=False)
    clock.step(world.config.issuance.resume_seconds)
    await issuance(world, client, pool=await database.pool(ISSUING)).step()
    (order,) = await world.fetch("select state, code from certificate_order")
    assert tuple(order) == ("refused", "order.expired")
    revoked = [each["reason"] for each in await world.fetch("select reason from revocation")]
    assert revoked == ([] if point == "accept" else [Reason.superseded])
    assert len(await world.fetch("select from signing_log where kind = 'certificate'")) == (point == "sign")


async def test_logs_that_are_down_delay_and_do_not_refuse(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]]
) -> None:
    """With too few SCTs the order waits as a precertificate; when the logs are back it is issued."""
    client, doubles = logs
    for double in doubles.values():
        double.status = 500
    use_case = issuance(world, client)
    order = await use_case.submit("operator:ann", "tls-dv", make_csr())
    assert (await use_case.finish(order.id, timeout=0)).state == "pending"
    doubles["alpha-one"].status = doubles["alpha-two"].status = 200
    assert await use_case.step() == 0
    doubles["beta-one"].status = 200
    assert await use_case.step() == 1


async def test_a_key_that_is_blocked_while_logs_answer_is_not_signed(world: World) -> None:
    """C9: the re-check before the second signature sees what happened since the first; the serial is revoked."""

    class Blocking:
        async def sct_list(
            self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int
        ) -> bytes:
            async with world.owner.acquire() as conn, conn.transaction():
                act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
                (row,) = await world.fetch("select spki_sha256 from certificate")
                await blocked_keys.block(conn, row["spki_sha256"], reason="keyCompromise", added_at=1, act_id=act)
            return bytes.fromhex("000400020102")

    await _refused_after(world, Blocking(), "key.blocked", Reason.keyCompromise)


async def test_a_precertificate_that_is_revoked_is_never_completed(world: World) -> None:
    """E8: revoked while the logs answered: no certificate is signed for the serial any more."""

    class Revoking:
        async def sct_list(
            self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int
        ) -> bytes:
            await _revoke(world)
            return bytes.fromhex("000400020102")

    await _refused_after(world, Revoking(), "certificate.revoked", Reason.unspecified)


async def test_a_precertificate_revoked_before_it_is_answered_does_not_wait_for_good(world: World) -> None:
    """C8: a sibling's compromise met it behind T2; its order ends at once, not after `resume_seconds`."""

    class Nowhere:
        async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
            return False

    async def revoke_behind_t2(step: str) -> None:
        if step == "precommit":
            await _revoke(world)

    unasked = Logging(world.signer.sign_precertificate, None)  # type: ignore[arg-type]
    use_case = world.issuance(answers=Nowhere(), logging=unasked, passed=revoke_behind_t2)
    order = await use_case.submit("operator:ann", "tls-dv", make_csr())
    order = await use_case.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("refused", "certificate.revoked")
    assert len(await world.fetch("select from revocation")) == 1


class Counting:
    """`Answers` of a public that sees every certificate at once, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0

    async def good(self, issuer: Issuer, issuer_certificate: bytes, serial: bytes) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize(("seconds", "asked"), [(0, 1), (60, 1), (61, 2)])
async def test_what_step_8_heard_is_asked_for_again_after_a_minute(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]], seconds: int, asked: int
) -> None:
    """A7, ADR 7: OCSP answers for the serial, not for one of its two certificates; but not for ever."""
    client, _ = logs
    answers = Counting()

    async def passed(step: str) -> None:
        if step == "log":
            await world.clock.advance(seconds)  # type: ignore[attr-defined]

    use_case = issuance(world, client, answers=answers, passed=passed)
    order = (await use_case.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)).order
    assert (order.state, answers.asked) == ("issued", asked)


@pytest.mark.parametrize("point", ["final", "sign"])
async def test_whoever_goes_on_with_an_order_asks_anew(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]], point: str
) -> None:
    """A7: what another process heard nobody remembers, and a worker that was interrupted neither."""
    client, _ = logs
    await _suffer(world, client, point, whole=True)
    answers = Counting()
    assert await issuance(world, client, answers=answers).step() == 1
    assert answers.asked == 1
    assert [each["state"] for each in await world.fetch("select state from certificate_order")] == ["issued"]


async def test_a_fault_makes_the_same_worker_ask_anew(world: World, logs: tuple[CtLogs, dict[str, LogDouble]]) -> None:
    """A7: it may have taken any time."""
    client, _ = logs
    answers, faults = Counting(), [QuashError("rpc.unavailable", "down", Kind.UNAVAILABLE)]

    async def sign(issuer_id: int, serial: bytes) -> bytes:
        if faults:
            raise faults.pop()
        return await world.signer.sign_certificate(issuer_id, serial)

    use_case = issuance(world, client, answers=answers, sign=sign)
    outcome = await use_case.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)
    assert outcome.order.state == "pending"
    assert answers.asked == 1
    assert await use_case.step() == 1
    assert answers.asked == 2


@pytest.mark.parametrize("point", ["log", "final", "sign"])
async def test_what_was_revoked_since_step_8_does_not_leave(
    world: World, logs: tuple[CtLogs, dict[str, LogDouble]], point: str
) -> None:
    """A7, C8: nobody asks again, and T3 finds it all the same, whether or not the last re-check did."""
    client, _ = logs

    async def passed(step: str) -> None:
        if step == point:
            await _revoke(world)

    use_case = issuance(world, client, passed=passed)
    order = (await use_case.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)).order
    assert (order.state, order.code) == ("refused", "certificate.revoked")
    assert len(await world.fetch("select from revocation")) == 1


async def test_a_worker_that_comes_back_late_harms_nobody(world: World, tmp_path: Path) -> None:
    """Another has finished the order while logs answered: the first one's word about its own twin ends nothing."""
    other: list[str] = []

    class Slow:
        async def sct_list(
            self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int
        ) -> bytes:
            root = await world.certificate_of("root")
            async with logs_of(tmp_path / "list", world.clock, [root]) as (client, _):
                rival = issuance(world, client)
                assert await rival.step() == 1
            other.append((await world.fetch("select state from certificate_order"))[0]["state"])
            return bytes.fromhex("000400020102")

    async def refusing(_twin: bytes, document: str) -> list[Report]:
        findings = (Finding("error", "e_test", "no good"),) if document == "dv-certificate" else ()
        return [Report("test", "1", findings, findings)]

    late = world.issuance(logging=Logging(world.signer.sign_precertificate, Slow()), linting=refusing)
    order = (await late.order("operator:ann", "tls-dv", make_csr(), by=None, timeout=0)).order
    assert (other, order.state) == (["issued"], "issued")
    assert await world.fetch("select from revocation") == []


async def _revoke(world: World) -> None:
    async with world.owner.acquire() as conn, conn.transaction():
        act = await acts.record(conn, at=1, actor="operator:bob", action="test", subject={})
        (row,) = await world.fetch("select issuer_id, serial from certificate")
        now = int(world.clock.now())
        revocation = Revocation(row["issuer_id"], row["serial"], 1, Reason.unspecified, now, now, None, act)
        await revocations.add(conn, [revocation])


async def _refused_after(world: World, transparency: Any, code: str, reason: Reason) -> None:
    use_case = world.issuance(logging=Logging(world.signer.sign_precertificate, transparency))
    order = await use_case.submit("operator:ann", "tls-dv", make_csr())
    order = await use_case.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("refused", code)
    assert [each["kind"] for each in await world.fetch("select kind from signing_log")] == ["precertificate"]
    assert [each["reason"] for each in await world.fetch("select reason from revocation")] == [reason]


async def test_without_logs_there_is_no_certificate_outside_a_demonstration(world: World) -> None:
    """E6: `ct.required` is true unless nothing is validated either, and then refuses before a serial is committed."""
    config = world.config.model_copy(update={"ct": world.config.ct.model_copy(update={"required": True})})
    use_case = world.issuance(config=config)
    order = await use_case.submit("operator:ann", "tls-dv", make_csr())
    order = await use_case.finish(order.id, timeout=0)
    assert (order.state, order.code) == ("refused", "ct.not_configured")
    assert await world.fetch("select from certificate") == []
    with pytest.raises(ValueError, match=r"ct\.required"):
        type(world.config).model_validate({"ct": {"required": False}})


async def test_sct_octets_that_are_none_are_never_signed(world: World) -> None:
    """E7: the CA signer itself refuses a list that holds no SCT."""

    class Raving:
        async def sct_list(
            self, precertificate: bytes, issuers: Sequence[bytes], seconds: int, not_after: int
        ) -> bytes:
            return b"\0\0"

    await _refused_after(world, Raving(), "tbs.extension", Reason.superseded)
    assert decode_list(b"\0\0") == []


async def test_logs_that_are_off_do_not_run() -> None:
    """E6: started by hand, they would write their list over that of the real logs."""
    with pytest.raises(QuashError, match=r"ct_log\.off"):
        await serve_logs(cast(Process, SimpleNamespace(config=Config())))


def test_logs_that_keep_no_promise_stand_beside_validation_in_a_demonstration_alone() -> None:
    """E6: a certificate that people may trust has no SCT of a double in memory."""
    with pytest.raises(ValueError, match=r"ct_log\.demonstration"):
        Config.model_validate({"ct_log": {"enabled": True}})
    Config.model_validate({"ct_log": {"enabled": True, "demonstration": True}})
    Config.model_validate({"ct_log": {"enabled": True}, "issuance": {"require_validation": False}})
