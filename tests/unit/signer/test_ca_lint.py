"""What linters say of certificates that nobody ordered goes by the configuration, and is stored (D47, D48)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from issuer.checks.findings import Finding
from issuer.issuance.self_audit import audit
from issuer.signer import lint
from issuer.signer.key_files import KeyFiles, online_opener
from issuer.signer.key_ring import KeyRing
from issuer.signer.rotation import Rotation
from issuer.signer.service import CaSigner
from quash.errors import Kind, QuashError
from quash.pki.serials import parse_serial
from quash.runtime.config import Config, Lint
from quash.store import signer_requests
from quash.store.database import acquire
from quash.store.roles import CA_SIGNER, PRESIGNER
from tests.support.initialising import Made
from tests.unit.issuance.test_self_audit import program
from tests.unit.signer.test_rotation import csr_of

DAY = 86_400
STORED = "select serial, document, linter, findings, refused from lint_result where order_id is null order by id"
KEEPS = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
if sys.argv[2:]:
    print("keeps 1.0")
else:
    (folder / str(len(list(folder.iterdir())))).write_bytes(sys.stdin.buffer.read())
    print("I: seen")
"""


def with_lint(made: Made, **changes: Any) -> Config:
    of = made.deployment.config.lint.model_dump() | changes
    return made.deployment.config.model_copy(update={"lint": Lint.model_validate(of)})


def external(folder: Path, program: str) -> list[dict[str, Any]]:
    command = (sys.executable, "-c", program, str(folder))
    return [{"name": "other", "command": command, "output": "lines", "version_command": (*command, "version")}]


async def test_every_result_is_stored(deployment: Made, database: Any, tmp_path: Path) -> None:
    """Of a root, a sub-CA and both OCSP signers, of pkilint and another; a renewed OCSP signer's by the CA signer."""
    folder = tmp_path / "seen"
    folder.mkdir()
    config = with_lint(deployment, external=external(folder, KEEPS))
    await deployment.make(config)
    serials = {
        parse_serial(f"{deployment.certificate(name).serial_number:x}"): profile
        for name, profile in (("root", "root"), ("tls-dv", "sub-ca"))
    }
    signers = await deployment.fetch("select serial, profile from certificate where profile = 'ocsp-signer'")
    stored = await deployment.fetch(STORED)
    wanted = {(serial, profile, linter) for serial, profile in (*serials.items(), *signers) for linter in LINTERS}
    assert {(serial, document, linter) for serial, document, linter, *_ in stored} == wanted
    assert len(stored) == len(wanted) == 8
    assert not any(refused for *_, refused in stored)
    assert all(found == [SEEN] for _, _, linter, found, _ in stored if linter == "other")
    twin = x509.load_der_x509_certificate((folder / "0").read_bytes())
    twin.verify_directly_issued_by(twin)  # or zlint would take it for a sub-CA
    root = deployment.certificate("root")
    assert (twin.subject, twin.serial_number) == (root.subject, root.serial_number)
    assert twin.public_key() != root.public_key()

    linters = {"self_audit": {"linters": [*external(folder, KEEPS), program("stranger", "pass")]}}
    deployment.clock.step(1)
    outcome = await audit(
        deployment.deployment.pool, Config.model_validate(config.model_dump() | linters), deployment.clock
    )
    assert {each.report.linter for each in outcome.audited} == {"stranger"}, "who gated it does not audit it (F12)"

    keys = KeyRing(online_opener(KeyFiles(config, deployment.state)))
    pool = await database.pool(CA_SIGNER)
    rotation = Rotation(pool, CaSigner(pool, keys, deployment.clock), config, deployment.clock)
    deployment.clock.step(15 * DAY)
    ((issuer_id,),) = await deployment.fetch("select id from issuer where name = 'tls-dv'")
    csr = csr_of(ec.generate_private_key(ec.SECP256R1()))
    async with acquire(await database.pool(PRESIGNER)) as conn:
        at = int(deployment.clock.now())
        await signer_requests.add(
            conn, issuer_id=issuer_id, switch_id=None, key_ref="pem:ocsp/new.pem", csr=csr, created_at=at
        )
    assert await rotation.step() == 1
    more = (await deployment.fetch(STORED))[len(stored) :]
    ((serial,),) = await deployment.fetch("select serial from signer_request")
    assert [each[:3] for each in more] == [(serial, "ocsp-signer", linter) for linter in LINTERS]
    await keys.close()


LINTERS = ("pkilint", "other")
SEEN = {"severity": "info", "code": "seen", "message": ""}


@pytest.mark.parametrize(("level", "severity"), [("notice", "notice"), ("warning", "warning"), ("error", "error")])
async def test_the_level_is_the_configurations(
    deployment: Made, monkeypatch: pytest.MonkeyPatch, level: str, severity: str
) -> None:
    """What is as grave as `lint.level` refuses, and is stored; nothing below does."""
    below = {"notice": "info", "warning": "notice", "error": "warning"}[severity]
    said = [Finding(below, "test.less", "less grave")]
    monkeypatch.setattr(lint, "findings", lambda *_: list(said))
    said.append(Finding(severity, "test.grave", "grave"))
    with pytest.raises(QuashError) as error:
        await deployment.make(with_lint(deployment, level=level))
    assert (error.value.code, error.value.kind) == ("lint.failed", Kind.REFUSED)
    assert "test.grave grave" in error.value.message
    assert "test.less" not in error.value.message
    ((_, document, linter, found, refused),) = await deployment.fetch(STORED)
    assert (document, linter, len(found), refused) == ("root", "pkilint", 2, True)
    assert await deployment.fetch("select from issuer") == []
    said.pop()
    await deployment.make(with_lint(deployment, level=level))


X509LINT = """
import sys
print("I: Checking as leaf certificate")
if b"\\x2b\\x06\\x01\\x05\\x05\\x07\\x03\\x09" in sys.stdin.buffer.read():
    print("E: No policy extension", "E: No CRL or OCSP over HTTP", sep="\\n")
    print("E: no authorityInformationAccess extension")
    print("E: Subject with organizationName, givenName or surname but without stateOrProvince or localityName")
    print("W: No HTTP URL for issuing certificate")
"""


async def test_x509lint_gates_cas_and_ocsp_signers(deployment: Made, tmp_path: Path) -> None:
    """G6, A15-A17: what it wants of a leaf stands in an OCSP signer; the real one says the very same of ours."""
    await deployment.make(with_lint(deployment, external=external(tmp_path, X509LINT)))
    stored = [row for row in await deployment.fetch(STORED) if row[2] == "other"]
    assert {(document, len(found), refused) for _, document, _, found, refused in stored} == {
        ("root", 1, False),
        ("sub-ca", 1, False),
        ("ocsp-signer", 6, False),
    }


@pytest.mark.parametrize("profile", ["root", "sub-ca"])
def test_no_ca_passes_for_an_ocsp_signer(profile: str) -> None:
    """A CA without policies, AIA or place names is still refused."""
    for said in lint.TAKEN_FOR_A_LEAF:
        assert lint.is_tolerated(Finding("error", said, ""), "ocsp-signer")
        assert not lint.is_tolerated(Finding("error", said, ""), profile)
    assert not lint.is_tolerated(Finding("error", "Issuer without countryName", ""), "ocsp-signer")


async def test_external_linters_gate_cas(deployment: Made, tmp_path: Path) -> None:
    """D48: their errors refuse a CA, and so does one that is missing."""
    config = with_lint(deployment, external=external(tmp_path, "print('E: wrong')"))
    with pytest.raises(QuashError, match=r"lint\.failed") as error:
        await deployment.make(config)
    assert "wrong" in error.value.message
    assert [(each[2], each[4]) for each in await deployment.fetch(STORED)] == [("pkilint", False), ("other", True)]
    missing = [{"name": "none", "command": ("/no/such/linter",), "output": "lines"}]
    with pytest.raises(QuashError, match=r"lint\.unavailable"):
        await deployment.make(with_lint(deployment, external=missing))
    assert await deployment.fetch("select from issuer") == []
