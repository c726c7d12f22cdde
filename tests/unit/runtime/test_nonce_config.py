"""Whose nonces are signed (A27): nobody's by default, an issuer's by its own word or by the responder's."""

from __future__ import annotations

from pathlib import Path

import pytest

from quash.errors import QuashError
from quash.runtime.config import load

DEMO = Path("config/demo.toml")


def test_nobodys_by_default() -> None:
    """The demo says nothing of nonces."""
    assert load(DEMO).nonce_signers == frozenset()


def test_by_issuer(tmp_path: Path) -> None:
    """In `issuers`, and by name for imported ones; the responder's word goes before."""
    path = tmp_path / "quash.toml"
    text = DEMO.read_text(encoding="utf-8")
    for name in ("tls-dv", "tls-ov"):
        text = text.replace(f'name = "{name}"\nkind = "sub-ca"', f'name = "{name}"\nnonce = "sign"\nkind = "sub-ca"')
    path.write_text(text, encoding="utf-8")
    assert load(path).nonce_signers == {"tls-dv", "tls-ov"}
    overrides = ("responder.nonce.tls-dv=ignore", "responder.nonce.imported=sign")
    assert load(path, overrides).nonce_signers == {"tls-ov", "imported"}


def test_nothing_but_ignore_and_sign() -> None:
    """A misspelt word is an error, not a default."""
    with pytest.raises(QuashError, match="nonce"):
        load(DEMO, ("responder.nonce.tls-dv=signed",))
