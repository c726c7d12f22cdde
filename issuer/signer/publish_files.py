"""Files that others read: CA certificates as PEM for operators and as DER for caIssuers URLs, and root CRLs."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quash.runtime.state import State
from quash.store import issuers
from quash.store.database import Connection


async def publish_certificates(conn: Connection, state: State) -> None:
    """Writes `certs/<issuer>.pem`, `certs/root.pem` (roots), `certs/chain.pem` (all CAs, issuing ones first) and the
    `<issuer>.cer` of each caIssuers URL into the publish folder; files that are right already are left alone.
    """
    chain: list[str] = []
    roots: list[str] = []
    for issuer in await issuers.all_issuers(conn):
        own = await issuers.certificate(conn, issuer.id)
        if own is None:
            continue
        pem = to_pem(own.der)
        write_file(state.certs / f"{issuer.name}.pem", pem.encode())
        write_file(state.crl / f"{issuer.name}.cer", own.der)
        chain.insert(0, pem)
        if issuer.kind == "root":
            roots.append(pem)
    write_file(state.certs / "root.pem", "".join(roots).encode())
    write_file(state.certs / "chain.pem", "".join(chain).encode())


def to_pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def write_file(path: Path, body: bytes, mode: int = 0o644) -> None:
    """Replaces a file whole and durably, unless it says this already: a reader sees the old one or the new one."""
    if path.exists() and path.read_bytes() == body:
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
