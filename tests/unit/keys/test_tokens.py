"""Tokens in trouble (G43): pulled out while signing, two behind one library, many threads (design 2)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quash.errors import QuashError
from quash.keys import KeyHandle, KeyKind, KeyUnavailable, open_key
from quash.keys.uri import parse_pkcs11_uri, shares_token
from quash.pki.algorithms import verify
from tests.support.softhsm import MODULE, PIN, Token, logins, make_token, patiently

KINDS: tuple[KeyKind, ...] = ("ec-p256", "rsa-2048")
HERE = Path("/none")


@pytest.fixture(scope="module")
def token() -> Token:
    """One that a test may pull out, with a key of each kind."""
    made = make_token()
    for kind in KINDS:
        made.make_key(kind, kind)
    return made


@pytest.fixture(scope="module")
def other() -> Token:
    """Another one behind the same library."""
    made = make_token()
    made.make_key("ec-p256")
    return made


@pytest.fixture
def handles(token: Token) -> Iterator[list[KeyHandle]]:
    """Every key of the token, open."""
    opened = [open_key(token.key(kind), HERE, None, logins=logins()) for kind in KINDS]
    yield opened
    for handle in opened:
        handle.close()


def works(handle: KeyHandle) -> bool:
    verify(handle.spki, handle.algorithm, handle.sign(b"x"), b"x")
    return True


def reopen(ref: str) -> KeyHandle:
    return patiently(lambda: open_key(ref, HERE, None, logins=logins()))


def code_of(ref: str) -> str:
    with pytest.raises(QuashError) as caught:
        open_key(ref, HERE, None, logins=logins())
    assert PIN not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_pulled_out_while_signing(token: Token, handles: list[KeyHandle], number: int) -> None:
    """Signing and opening say that it is away; back in its place it is logged in to again, without a restart of ours.

    The token's other handle was not even used meanwhile: it goes on as if nothing had been.
    """
    with token.away():
        with pytest.raises(KeyUnavailable):
            handles[number].sign(b"x")
        assert code_of(token.key(KINDS[number])) == "key.unavailable"
    handles[number].close()
    handles[number] = reopen(token.key(KINDS[number]))
    assert all(map(works, handles))


def test_the_loss_of_one_token_ends_nothing_on_another(token: Token, other: Token, handles: list[KeyHandle]) -> None:
    """The library is started anew to find the lost one again, and the other's handle signs on, with its own key."""
    elsewhere = open_key(other.key("ec-p256"), HERE, None, logins=logins())
    for _ in range(2):
        with token.away():
            with pytest.raises(KeyUnavailable):
                handles[0].sign(b"x")
            assert works(elsewhere)
            assert code_of(token.key("ec-p256")) == "key.unavailable"
            assert works(elsewhere)
        handles[0].close()
        handles[0] = reopen(token.key("ec-p256"))
        assert works(elsewhere)
        assert works(handles[0])
    elsewhere.close()


@pytest.mark.long  # a library started anew finds a token that was away, too
def test_a_token_that_comes_later(other: Token) -> None:
    """Made by another program while the library runs: found at the next opening."""
    assert works(open_key(other.key("ec-p256"), HERE, None, logins=logins()))
    late = make_token()
    subprocess.run(
        [sys.executable, "-c", _MAKE.format(uri=late.uri, logins=str(logins()))],
        check=True,
        capture_output=True,
        timeout=60,
    )
    handle = reopen(late.key("k"))
    assert works(handle)
    handle.close()


_MAKE = """
from pathlib import Path
from quash.keys import ensure_successor
ensure_successor({uri!r}, "k", "ec-p256", Path("/"), None, logins=Path({logins!r}))
"""


def test_many_threads(handles: list[KeyHandle]) -> None:
    """Handles of one library in threads of their own: calls take turns, nobody gets another's signature or an error.

    Without a lock SoftHSM2 answers CKR_GENERAL_ERROR within a few calls: python-pkcs11 promised it one thread.
    """
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda handle: [works(handle) for _ in range(150)], handles))
    assert [len(each) for each in done] == [150, 150]


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ("token=%(label)s;manufacturer=SoftHSM%%20project;model=SoftHSM%%20v2;library-version=2.6", None),
        ("token=%(label)s;library-manufacturer=SoftHSM", None),
        ("token=%(label)s;model=Another%%20one", "key.unavailable"),
        ("token=%(label)s;manufacturer=Another", "key.unavailable"),
        ("token=%(label)s;serial=0000", "key.unavailable"),
        ("token=%(label)s;slot-id=1", "key.unavailable"),
        ("manufacturer=SoftHSM%%20project", "key.unavailable"),  # several tokens
        ("token=%(label)s;slot=1", "key.bad_reference"),
        ("token=%%zz", "key.bad_reference"),
        ("token=two words", "key.bad_reference"),
        ("token=%%ff", "key.bad_reference"),
    ],
)
def test_what_a_uri_says_of_a_token_holds(token: Token, other: Token, attributes: str, code: str | None) -> None:
    """RFC 7512 2.5: all attributes must match; none is passed over."""
    query = token.uri.partition("?")[2]
    ref = f"pkcs11:{attributes % {'label': token.label}};object=ec-p256?{query}"
    if code is None:
        handle = open_key(ref, HERE, None, logins=logins())
        assert works(handle)
        handle.close()
    else:
        assert code_of(ref) == code


@pytest.mark.parametrize("source", ["pin-source=|cat /pin", "pin-source=file:pin", "pin-source=", "pin-value=1234"])
def test_a_pin_comes_from_a_file(source: str) -> None:
    """RFC 7512 2.4 knows commands and PINs in the URI; a command is code in a configuration, a PIN ends up in logs."""
    with pytest.raises(QuashError) as caught:
        parse_pkcs11_uri(f"pkcs11:object=k?module-path={MODULE}&{source}")
    assert caught.value.code == "key.bad_reference"
    assert "1234" not in str(caught.value)


def test_one_token_or_two() -> None:
    """Two references may mean one token unless the library, or an attribute that both have, tells them apart."""
    a = "pkcs11:token=a;object=x?module-path=/m.so"
    assert shares_token(a, "pkcs11:token=a;object=y?module-path=/m.so&pin-source=file:/p")
    assert shares_token(a, "pkcs11:serial=7;object=y?module-path=/m.so")
    assert shares_token(a, "pkcs11:object=y?module-path=/m.so")
    assert not shares_token(a, "pkcs11:token=b;object=x?module-path=/m.so")
    assert not shares_token(a, "pkcs11:token=a;object=x?module-path=/n.so")
    assert not shares_token(a, "pem:ca/a.pem")
    assert not shares_token("pem:ca/a.pem", "pem:ca/a.pem")


def test_a_link_to_a_library_is_the_same_library(tmp_path: Path) -> None:
    """Debian ships SoftHSM under /usr/lib/softhsm and, by a link, below the architecture's folder."""
    (tmp_path / "lib.so").touch()
    (tmp_path / "link.so").symlink_to("lib.so")
    one, two = (f"pkcs11:token=a?module-path={tmp_path}/{name}.so" for name in ("lib", "link"))
    assert shares_token(one, two)
    assert not shares_token(one, two.replace("token=a", "token=b"))
