"""Keys that nobody orders certificates for, of CAs, OCSP signers and operators, go through what keys of orders do.

D40-D45, G9.
"""

from __future__ import annotations

import hashlib

from issuer.checks.keys import check_once
from quash.errors import Kind, QuashError
from quash.runtime.config import Checks
from quash.store import blocked_keys
from quash.store.database import Connection
from quash.store.issuers import Issuer


async def check_ca_key(
    conn: Connection, config: Checks, spki: bytes, *, issuer: Issuer | None, ask: bool = True
) -> None:
    """Refuses a key whose certificate `issuer` would sign; None: a root itself, or the operators' CA.

    `ask`: also a service of strangers. It takes as long as that and arithmetic do, so no lock is held meanwhile; who
    signs looks again, under the key's lock, by `check_not_blocked`. Raises `key.*`, `blocklist.unreadable`.
    """
    private = issuer is not None and issuer.signature_algorithm == "ed25519"
    await check_not_blocked(conn, spki)
    await check_once(config, spki, private=private, ask=ask)


async def check_not_blocked(conn: Connection, spki: bytes) -> None:
    """Raises `key.blocked`. It holds as long as the caller has the key's lock, or nobody else can know the key."""
    if await blocked_keys.is_blocked(conn, hashlib.sha256(spki).digest()):
        raise QuashError("key.blocked", "this key was reported compromised: make a new one (C9)", Kind.REFUSED)
