"""`quash import`: what it takes from the files that it is given."""

from __future__ import annotations

import pytest

from quash.cli.importing import _first_line


@pytest.mark.parametrize(
    ("body", "passphrase"),
    [
        (b"", b""),
        (b"\n", b""),
        (b"word", b"word"),
        (b"word\n", b"word"),
        (b"word\r\nmore\n", b"word"),
        (b" a b ", b" a b "),
    ],
)
def test_a_passphrase_is_the_first_line_without_its_end(body: bytes, passphrase: bytes) -> None:
    """An empty file is an empty passphrase, which no key has, and not a fault of ours; blanks belong to it."""
    assert _first_line(body) == passphrase
