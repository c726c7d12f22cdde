"""Fetching the log list, by explicit command: what its publisher did not sign, or is older, changes nothing (E9)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import aiohttp
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from issuer.ct import log_list
from issuer.ct.log_list import LogList
from quash.errors import Kind, QuashError
from quash.runtime.config import Ct

_MOST: Final = 8 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)


async def refresh(config: Ct, file: Path) -> LogList:
    """Fetches list and signature, and puts the list into `file` once both are good; returns it.

    Raises `ct.no_source`, `ct.list_unreachable`, `ct.list_key`, `ct.list_signature`, `ct.list_older`, `ct.log_list`.
    """
    if not config.list_url or not config.signature_url or config.list_key is None:
        message = "set ct.list_url, ct.signature_url and ct.list_key: an unsigned list is anybody's (E9)"
        raise QuashError("ct.no_source", message)
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        text, signature = [await _fetch(session, url) for url in (config.list_url, config.signature_url)]
    check_signature(config.list_key, text, signature)
    found = log_list.read(text)
    if file.exists() and log_list.read(file.read_bytes()).made_at > found.made_at:
        raise QuashError("ct.list_older", f"{config.list_url} is older than what is there: it was kept", Kind.REFUSED)
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(text)
    fresh.replace(file)
    return found


def check_signature(key_file: Path, text: bytes, signature: bytes) -> None:
    """By the publisher's key (PEM), RSA PKCS #1 v1.5 or ECDSA with SHA-256. Raises `ct.list_key`, `.list_signature`."""
    try:
        key = load_pem_public_key(key_file.read_bytes())
    except (OSError, ValueError) as error:
        raise QuashError("ct.list_key", f"{key_file} has no public key in PEM: {error}") from None
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        else:
            raise QuashError("ct.list_key", f"{key_file} is neither an RSA nor an EC key")
    except InvalidSignature:
        raise QuashError(
            "ct.list_signature", f"the list is not signed by {key_file}: it was not taken", Kind.REFUSED
        ) from None


async def _fetch(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MOST:
                    break
            if response.status != 200 or len(body) > _MOST:
                raise QuashError("ct.list_unreachable", f"{url}: HTTP {response.status}", Kind.UNAVAILABLE)
            return bytes(body)
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error) or type(error).__name__
        raise QuashError("ct.list_unreachable", f"{url}: {said}", Kind.UNAVAILABLE) from None
