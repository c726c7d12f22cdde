"""`python -m responder.presign.measure KIND RECORDS ROUNDS`: what one process signs, against a bare sign loop.

Prints one line of JSON: CPU seconds of each round, `bare` (two signatures a record by the library alone, over octets
of the same size, nothing kept) and `records` (`RecordSigner`, from statuses to encoded records, self-check included).
The rounds alternate, so that whatever slows this machine for a while slows both. Used by `make bench-signing`.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quash.keys import KeyKind, generate_pem_key, open_key
from quash.pki.algorithms import algorithm_for_spki
from quash.pki.serials import new_serial
from quash.store.ocsp_signers import OcspSigner
from quash.store.statuses import CertificateStatus
from responder.presign.signing import RecordSigner

_BEGINS, _ENDS = 1_800_000_000, 1_900_000_000
_AS_OF, _VALIDITY = _BEGINS + 86_400, 172_799
_TBS = 220  # octets of a typical ResponseData
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_REVOKED = 3  # one in so many, as after a large revocation


def main(kind: KeyKind, count: int, rounds: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory(prefix="quash-signing-") as folder:
        signer, private = _signer(Path(folder), kind)
        statuses = [_status(number) for number in range(count)]
        octets = secrets.token_bytes(_TBS)
        sign = _bare(private)
        bare, records = [], []
        for _ in range(rounds):
            bare.append(_cpu(lambda: [sign(octets) for _ in range(2 * count)]))
            records.append(_cpu(lambda: signer.sign(statuses, _AS_OF, _VALIDITY)))
        signer.close()
    sys.stdout.write(json.dumps({"kind": kind, "count": count, "bare": bare, "records": records}) + "\n")


def _cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _status(number: int) -> CertificateStatus:
    revoked = number % _REVOKED == 0
    return CertificateStatus(
        1,
        new_serial(),
        "issued",
        0,
        _ENDS,
        int(revoked),
        4 if revoked else None,
        _BEGINS if revoked else 0,
        proven=True,
    )


def _bare(key: _PrivateKey) -> Callable[[bytes], bytes]:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    digest = hashes.SHA256()
    if isinstance(key, rsa.RSAPrivateKey):
        rsa_sign, pkcs1 = key.sign, padding.PKCS1v15()
        return lambda tbs: rsa_sign(tbs, pkcs1, digest)
    ec_sign, scheme = key.sign, ec.ECDSA(hashes.SHA384() if key.curve.name == "secp384r1" else digest)
    return lambda tbs: ec_sign(tbs, scheme)


def _signer(folder: Path, kind: KeyKind) -> tuple[RecordSigner, _PrivateKey]:
    """A signer over a key in a file, as in production, under a throw-away CA; and the same key in the library."""
    secret = folder / "passphrase"
    secret.write_text(secrets.token_urlsafe())
    generate_pem_key(folder / "key.pem", kind, secret)
    private = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), secret.read_bytes())
    assert isinstance(private, _PrivateKey)  # noqa: S101 - KeyKind has no other
    edwards = kind == "ed25519"  # which is trusted below its like alone
    ca = ed25519.Ed25519PrivateKey.generate() if edwards else ec.generate_private_key(ec.SECP256R1())
    digest = None if edwards else hashes.SHA256()
    issuer = _builder("CA", ca.public_key()).sign(ca, digest)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    delegated = _builder("OCSP", private.public_key()).add_extension(usage, critical=False)
    certificate = delegated.add_extension(x509.OCSPNoCheck(), critical=False).sign(ca, digest)
    key = open_key("pem:key.pem", folder, secret, logins=folder)
    row = OcspSigner(
        1, 1, certificate.public_bytes(Encoding.DER), "", algorithm_for_spki(key.spki).name, _BEGINS, _ENDS, "active", 0
    )
    return RecordSigner(row, issuer.public_bytes(Encoding.DER), key), private


def _builder(
    name: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(_BEGINS, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(_ENDS, dt.UTC))
    )


if __name__ == "__main__":
    _, chosen, count_, rounds_ = sys.argv
    if chosen not in get_args(KeyKind):
        sys.exit(f"KIND is one of {', '.join(get_args(KeyKind))}")
    main(chosen, int(count_), int(rounds_))  # type: ignore[arg-type]
