"""`quash evidence`: what one revocation leaves behind, and a bundle of it that needs nothing but openssl to check."""

from __future__ import annotations

import asyncio
import base64
import http.client
import shlex
import shutil
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from asn1crypto import pem as pem_format

from issuer.audit.chain import Checkpoint
from issuer.issuance.visible import Heard, PublicAnswers
from quash.cli.agreement import Authority
from quash.cli.client import (
    DEFAULT_OPERATOR,
    Api,
    AsOption,
    CertOption,
    IssuerOption,
    SerialArgument,
    name_certificate,
)
from quash.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_STATE,
    ConfigOption,
    Context,
    JsonOption,
    SetOption,
    StateOption,
    context,
    print_json,
    reports_errors,
)
from quash.errors import Kind, QuashError
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.certificate import read_certificate
from quash.pki.serials import parse_serial
from quash.runtime.clock import SystemClock

OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the bundle; check.sh in it checks it.")]
_TIMEOUT = 60.0
_MAX_CRL = 64 << 20
_PLACES = {"feed": "in the feed", "ocsp": "first seen in OCSP", "crl": "first seen in the CRL"}


@reports_errors
def evidence(
    *,
    serial: SerialArgument = None,
    cert: CertOption = None,
    issuer: IssuerOption = None,
    out: OutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    set_: SetOption = None,
    as_: AsOption = DEFAULT_OPERATOR,
    json_: JsonOption = False,
) -> None:
    """Tells who revoked a certificate, why, with what proof, and when it was recorded, signed and seen outside."""
    deployment = context(config, state, set_)
    api = Api(deployment, deployment.config.admin, as_)
    status = api.post("/v1/certificates/lookup", name_certificate(serial, cert, issuer))
    if status["issuer"] is None:
        raise QuashError("certificate.unknown", "no certificate has this serial: check it", Kind.NOT_FOUND)
    found = api.get(f"/v1/certificates/{status['issuer']}/{status['serial']}/evidence", timeout=_TIMEOUT)
    if json_:
        print_json(found)
    else:
        _tell(found)
    if out is not None:
        missing = write_bundle(deployment, found, status["crl_url"], out)
        if not json_:
            print(f"wrote {out}: sh {shlex.quote(str(out / 'check.sh'))} checks it with openssl")
            for each in missing:
                print(f"  not in it: {each}")


def _tell(found: dict[str, Any]) -> None:
    print(f"{found['issuer']} {found['serial']}")
    for each in found["revocations"]:
        act = each["act"]
        print(f"  {each['recorded_at']}  {act['by']}: {each['reason']} since {each['revoked_at']} ({act['action']})")
        for sighting in each["sightings"]:
            where = " ".join(filter(None, (_PLACES[sighting["kind"]], sighting["place"], sighting["hash"])))
            print(f"  {sighting['at']}  {where}, signed {sighting['signed_at']}, SHA-256 {sighting['sha256']}")
        covered = "covered by a signed checkpoint" if each["ledger_proof"] else "not yet covered by a checkpoint"
        print(f"  ledger position {each['ledger_position'] or 'none yet'}, {covered}")
    for proof in found["proofs"]:
        print(f"  proof of compromise: {proof['kind']} of {proof['at']}, SHA-256 {proof['sha256']}")
    for case in found["cases"]:
        print(f"  case {case}")


def write_bundle(deployment: Context, found: dict[str, Any], crl_url: str | None, folder: Path) -> list[str]:
    """Writes everything into a folder, with a `check.sh` for it; returns what could not be had, in words."""
    folder.mkdir(parents=True, exist_ok=True)
    script: list[str] = [_HEAD]
    missing: list[str] = []
    (folder / "evidence.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    issuer = _octets(found["issuer_certificate"])
    _write_pem(folder / "issuer.pem", issuer)
    if found["certificate"]:
        _write_pem(folder / "certificate.pem", _octets(found["certificate"]))
    latest = found["revocations"][-1]
    responses = _responses(deployment, found, latest, missing)
    for name, digest, at, body in responses:
        (folder / name).write_bytes(body)
        script.append(_OCSP.format(file=name, digest=digest, at=at, serial=found["serial"]))
    crl = _fetch(crl_url) if crl_url else None
    if crl is None:
        missing.append("the CRL")
    else:
        (folder / "crl.der").write_bytes(crl)
        script.append(_CRL.format(serial=parse_serial(found["serial"]).hex().upper()))
    if latest["ledger_proof"] is None:
        missing.append("the ledger's proof: no checkpoint covers it yet, ask again in a few minutes")
    else:
        _write_ledger(deployment, folder, latest["ledger_proof"], missing)
        script.append(_LEDGER)
    script.append('echo "everything checked"')
    (folder / "check.sh").write_text("\n".join(script) + "\n", encoding="utf-8")
    return missing


def _responses(
    deployment: Context, found: dict[str, Any], latest: dict[str, Any], missing: list[str]
) -> list[tuple[str, str, int, bytes]]:
    """(file, hash, a time at which it was valid, DER): as first seen; where only its hash was kept, as of now."""
    kept = [each for each in latest["sightings"] if each["response"]]
    if kept:
        return [
            (f"ocsp-{n}-{each['hash']}.der", each["hash"], _seconds(each["signed_at"]), _octets(each["response"]))
            for n, each in enumerate(kept, 1)
        ]
    heard = [each for each in asyncio.run(_ask(deployment, found)) if each.status is not None]
    if not heard:
        missing.append("OCSP responses: no responder answers")
    return [
        (f"ocsp-{n}-{each.algorithm.value}.der", each.algorithm.value, each.this_update, each.body)
        for n, each in enumerate(heard, 1)
    ]


async def _ask(deployment: Context, found: dict[str, Any]) -> list[Heard]:
    own = _octets(found["issuer_certificate"])
    fields = read_certificate(own)
    authority = Authority(own, fields.subject, fields.spki, found["ocsp_path"])
    async with PublicAnswers(deployment.config.visible_at, SystemClock()) as answers:
        return await answers.ask(authority, own, parse_serial(found["serial"]))


def _write_ledger(deployment: Context, folder: Path, proof: dict[str, Any], missing: list[str]) -> None:
    links = folder / "ledger"
    shutil.rmtree(links, ignore_errors=True)  # an older proof's links would be hashed too
    links.mkdir()
    (links / "previous.bin").write_bytes(bytes.fromhex(proof["previous"]))
    for number, each in enumerate(proof["entries"], 1):
        (links / f"entry-{number:06}.json").write_text(each["entry"], encoding="ascii")
    checkpoint = Checkpoint.parse(proof["checkpoint"].encode())
    (links / "checkpoint.signed").write_bytes(checkpoint.signed)
    keys = deployment.state.root / "certs" / "ledger.pub.pem"
    if not keys.is_file():
        missing.append("certs/ledger.pub.pem, the ledger's public key: put it into the folder ledger")
        return
    shutil.copy(keys, links / "ledger.pub.pem")
    _, _, spki = pem_format.unarmor(keys.read_bytes())
    (links / "checkpoint.sig").write_bytes(algorithm_for_spki(spki).encode(checkpoint.signature))


def _fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - the CRLDP of our own certificate
            body: bytes = answer.read(_MAX_CRL)
            return body
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return None


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _octets(text: str) -> bytes:
    return base64.b64decode(text)


def _write_pem(path: Path, der: bytes) -> None:
    path.write_bytes(pem_format.armor("CERTIFICATE", der))


_HEAD = """#!/bin/sh
# Checks this bundle with openssl alone. It trusts issuer.pem and ledger/ledger.pub.pem: compare both with copies
# that you have from elsewhere.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
must() { grep -q "$1" "$2" || { echo "FAILED: $3"; cat "$2"; exit 1; }; }
"""
_OCSP = """
# The response was verified at its own time: by now it may have ended.
openssl ocsp -respin {file} -issuer issuer.pem -{digest} -serial 0x{serial} -CAfile issuer.pem -partial_chain \\
  -no_nonce -attime {at} -validity_period 3153600000 >"$work/said" 2>&1 || true
must 'Response verify OK' "$work/said" {file}
must '^0x{serial}: revoked' "$work/said" {file}
echo "{file}: revoked"
"""
_CRL = """
openssl crl -inform DER -in crl.der -CAfile issuer.pem -noout >"$work/said" 2>&1
must 'verify OK' "$work/said" crl.der
openssl crl -inform DER -in crl.der -noout -text >"$work/text"
must 'Serial Number: {serial}$' "$work/text" "crl.der does not list it"
echo "crl.der: revoked"
"""
_LEDGER = """
# hash(n) = SHA-256("quash ledger 1\\\\n" || hash(n-1) || entry n); the checkpoint signs the last one.
cp ledger/previous.bin "$work/hash"
for entry in ledger/entry-*.json; do
  { printf 'quash ledger 1\\n'; cat "$work/hash" "$entry"; } | openssl dgst -sha256 -binary >"$work/next"
  mv "$work/next" "$work/hash"
done
hash=$(od -An -v -tx1 "$work/hash" | tr -d ' \\n')
must "\\"hash\\":\\"$hash\\"" ledger/checkpoint.signed "the links do not lead to what the checkpoint signs"
openssl dgst -sha256 -verify ledger/ledger.pub.pem -signature ledger/checkpoint.sig ledger/checkpoint.signed
echo "ledger: $(ls ledger/entry-*.json | wc -l) links up to a signed checkpoint"
"""
