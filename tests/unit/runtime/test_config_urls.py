"""The URLs that certificates carry: what the rules forbid cannot be configured (G25)."""

from __future__ import annotations

from pathlib import Path

import pytest

from quash.errors import QuashError
from quash.runtime.config import load


def _load(tmp_path: Path, *overrides: str) -> str:
    path = tmp_path / "quash.toml"
    path.write_text("")
    config = load(path, overrides)
    return f"{config.ocsp_base} {config.crl_base}"


def test_http_urls_are_taken(tmp_path: Path) -> None:
    """Host, port and path are free; a slash at the end is not doubled."""
    taken = _load(tmp_path, "responder.base_url=http://o.example:81/ca/", "crl_origin.base_url=http://[::1]:8081")
    assert taken == "http://o.example:81/ca http://[::1]:8081"


@pytest.mark.parametrize("key", ["responder.base_url", "crl_origin.base_url"])
@pytest.mark.parametrize(
    "url", ["https://o.example", "ldap://o.example", "o.example", "http://", "http://o.example/a b", "http://o/?q=1"]
)
def test_other_urls_are_refused(tmp_path: Path, key: str, url: str) -> None:
    """B17 and D7 allow plain http alone."""
    with pytest.raises(QuashError, match=r"config\.invalid"):
        _load(tmp_path, f"{key}={url}")


def test_an_ocsp_url_that_makes_a_get_too_long_is_refused(tmp_path: Path) -> None:
    """A32: with more than 60 characters before it an escaped request no longer fits in 255 octets."""
    fits = "http://" + "o" * 45 + ".example"
    assert _load(tmp_path, f"responder.base_url={fits}").startswith(fits)
    with pytest.raises(QuashError, match=r"config\.invalid"):
        _load(tmp_path, f"responder.base_url={fits}x")
