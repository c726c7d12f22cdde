"""Golden octets: from the values that OpenSSL and pyca worked from, quash.pki makes their very octets (make_pki.py)."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from quash.pki.algorithms import SIGNATURE_ALGORITHMS, verify
from quash.pki.certid import CertId, CertIdHash, encode_certid, key_identifier
from quash.pki.certificate import read_certificate
from quash.pki.crl import certificate_list, entry, read_crl, read_entry, tbs_cert_list
from quash.pki.der import SEQUENCE, tlv
from quash.pki.names import build_name, name_attributes
from quash.pki.ocsp_reading import parse_response
from quash.pki.ocsp_request import OcspRequest, build_request, parse_request
from quash.pki.ocsp_response import GOOD, ResponseTemplate, Status
from quash.pki.serials import parse_serial

FOLDER = Path(__file__).parent / "pki"
CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())
COUNTS = {"certificate": 8, "request": 5, "response": 24, "single": 4, "crl": 7}
SERIALS = {"good": "5B0E4F1A2C3D4E5F60718293A4B5C6D7", "revoked": "7F"}


def of_kind(kind: str) -> list[str]:
    return [name for name, case in CASES.items() if case["kind"] == kind]


def octets(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


def template(algorithm: str) -> ResponseTemplate:
    issuer = read_certificate(octets(f"ca-{algorithm}.der"))
    return ResponseTemplate(
        issuer_subject=issuer.subject,
        issuer_spki=issuer.spki,
        signer_certificate=octets(f"signer-{algorithm}.der"),
        algorithm=SIGNATURE_ALGORITHMS[algorithm],
    )


def status(case: dict[str, Any]) -> Status:
    return Status(case["revoked"][0], seconds(case["revoked"][1])) if case["revoked"] else GOOD


def test_no_golden_file_is_lost() -> None:
    """Every case has its file, every file its case, and there are as many of each kind as were made."""
    assert {path.name for path in FOLDER.iterdir()} == {*CASES, "cases.json"}
    assert {kind: len(of_kind(kind)) for kind in COUNTS} == COUNTS
    assert len(CASES) == sum(COUNTS.values()) == 48


@pytest.mark.parametrize("name", of_kind("request"))
def test_requests_are_openssls(name: str) -> None:
    """OpenSSL's requests read to the CertIDs it was asked for; one of one certificate is built alike (A20, A27)."""
    case = CASES[name]
    h = CertIdHash(case["hash"])
    issuer = template("ecdsa-p256-sha256").issuer[h]
    asked = tuple(CertId(h, *issuer, parse_serial(SERIALS[which])) for which in case["serials"])
    nonce = bytes.fromhex(case["nonce"]) if case["nonce"] else None
    assert parse_request(octets(name)) == OcspRequest(asked, nonce)
    if len(asked) == 1:
        assert build_request(asked[0], nonce) == octets(name)


@pytest.mark.parametrize("name", of_kind("response"))
def test_responses_are_openssls(name: str) -> None:
    """Our template makes OpenSSL's responses octet for octet: four algorithms, two hashes, three statuses (A18-A25)."""
    case = CASES[name]
    ours, h, serial = template(case["algorithm"]), CertIdHash(case["hash"]), parse_serial(case["serial"])
    values = (h, serial, status(case), case["this_update"], case["next_update"])
    raw = ours.algorithm.decode(bytes.fromhex(case["signature"]))
    assert ours.response(*values, raw) == octets(name)
    verify(read_certificate(octets(f"signer-{case['algorithm']}.der")).spki, ours.algorithm, raw, ours.tbs(*values))
    found = parse_response(octets(name))
    assert found.cert_id == CertId(h, *ours.issuer[h], serial)
    assert (found.status, found.this_update, found.next_update) == values[2:]


@pytest.mark.parametrize("name", of_kind("single"))
def test_single_responses_are_pycas(name: str) -> None:
    """The SingleResponse of each other reason, at the turn of 2050, is pyca's: GeneralizedTime always (A25, A29)."""
    case = CASES[name]
    ours, h = template(case["algorithm"]), CertIdHash(case["hash"])
    tbs = ours.tbs(h, parse_serial(case["serial"]), status(case), case["this_update"], case["next_update"])
    single = tbs[tbs.index(encode_certid(CertId(h, *ours.issuer[h], parse_serial(case["serial"])))) :]
    assert tlv(SEQUENCE, tlv(SEQUENCE, single)) in octets(name)


@pytest.mark.parametrize("name", of_kind("crl"))
def test_crls_are_openssls_and_pycas(name: str) -> None:
    """Full CRLs of `openssl ca` and shards of pyca come out octet for octet, and read back (B1, B7-B10, B15, B19)."""
    case = CASES[name]
    algorithm = SIGNATURE_ALGORITHMS[case["algorithm"]]
    issuer = read_certificate(octets(f"ca-{case['algorithm']}.der"))
    entries = [(parse_serial(serial), seconds(moment), reason) for serial, reason, moment in case["entries"]]
    tbs = tbs_cert_list(
        algorithm=algorithm,
        issuer=issuer.subject,
        this_update=seconds(case["this_update"]),
        next_update=seconds(case["next_update"]),
        entries=[entry(*values) for values in entries],
        authority_key_id=key_identifier(issuer.spki),
        number=case["number"],
        idp_urls=(case["url"],) if case["url"] else (),
        only=case["only"],
    )
    raw = algorithm.decode(bytes.fromhex(case["signature"]))
    assert certificate_list(tbs, algorithm, raw) == octets(name)
    verify(issuer.spki, algorithm, raw, tbs)
    found = read_crl(octets(name))
    assert [read_entry(each) for each in found.entries] == entries
    assert (found.number, found.idp_urls, found.only) == (
        case["number"],
        (case["url"],) if case["url"] else (),
        case["only"],
    )


def test_name_is_openssls() -> None:
    """`openssl req -subj` and build_name write the same Name: order and string types of D13."""
    values = {"CN": "Essai CA 1", "O": "Agence d'essai", "L": "Tunis", "ST": "Tunis", "C": "TN"}
    subject = read_certificate(octets("ca-rsa-sha256.der")).subject
    assert build_name(values) == subject
    assert dict(name_attributes(subject)) == values
