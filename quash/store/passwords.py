"""Passwords of the database roles: one random one each, in a file that only its owner may read.

Clear text never reaches the server: it is given the SCRAM verifier (RFC 5802, RFC 7677), so no server log can hold it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from quash.errors import Kind, QuashError
from quash.runtime.state import State

_ITERATIONS = 4096  # PostgreSQL's own; the passwords are random, so stretching adds nothing


def password_file(state: State, role: str) -> Path:
    return state.secrets / f"{role}.password"


def read_password(state: State, role: str) -> str:
    """The password of a role; raises `store.password_missing` on a machine that was not given it."""
    path = password_file(state, role)
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise QuashError(
            "store.password_missing",
            f"{path} does not exist: run `quash init`, or copy the file from where it ran",
            Kind.UNAVAILABLE,
        ) from None


def ensure_password(state: State, role: str) -> str:
    """The password of a role, made at random the first time."""
    path = password_file(state, role)
    if not path.exists():
        state.write_secret(path, secrets.token_urlsafe(32).encode())
    return read_password(state, role)


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores for an ASCII password, with a new salt."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${_ITERATIONS}:{_b64(salt)}${_b64(stored_key)}:{_b64(server_key)}"


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
