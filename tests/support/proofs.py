"""Proofs of compromise, honest ones and the parts that fakes are made of."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """A private key, unencrypted."""
    return str(key.private_bytes(Encoding.PEM, form, NoEncryption()).decode())


def csr(key: Any, *names: str, digest: Any = None) -> str:
    """A request with these common names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, digest or hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def b64(value: bytes | dict[str, Any]) -> str:
    """base64url, of JSON for a dict."""
    octets = json.dumps(value).encode() if isinstance(value, dict) else value
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def jws(key: Any, alg: str = "ES256", payload: Any = None, **header: Any) -> dict[str, str]:
    """A flattened JWS over a payload."""
    protected = b64({"alg": alg, **header})
    body = b64(payload)
    data = f"{protected}.{body}".encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, bytes):
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(data)
        signature = mac.finalize()
    else:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return {"protected": protected, "payload": body, "signature": b64(signature)}
