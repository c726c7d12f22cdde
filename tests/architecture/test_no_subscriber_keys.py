"""D46, G31: subscribers make their keys themselves. No part of the CA makes one for them, takes one, or packs one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from aiohttp import web

from issuer.issuance import validation_api
from issuer.issuance.api import OrderRequest, add_routes
from issuer.issuance.openapi import API
from issuer.openapi import document

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("quash", "issuer", "responder", "crlgen")

# Every module that makes key pairs, and whose they are; none of these keys is a subscriber's.
MAKERS: Final = {
    "quash/keys/pem.py": "CAs and OCSP signers, in files",
    "quash/keys/token.py": "CAs and OCSP signers, on tokens",
    "issuer/profiles.py": "throw-away keys that sign twins for linters",
    "issuer/signer/operators.py": "operators and the private APIs, in a PKI of their own",
    "issuer/ct/main.py": "the demonstration's logs",
    "issuer/testsite/sites.py": "our own test sites, which are the subscriber themselves",
    "responder/presign/measure.py": "keys that measure how fast this machine signs",
}
GENERATE: Final = frozenset({"generate", "generate_private_key", "generate_keypair", "generate_parameters"})
PACK: Final = "pkcs12"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def called(tree: ast.Module) -> set[str]:
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in functions}


def test_only_these_modules_make_keys() -> None:
    """Another one must say here whose keys it makes."""
    assert {name for name, tree in modules() if called(tree) & GENERATE} == set(MAKERS)


def test_nothing_packs_keys_with_certificates() -> None:
    """G31: no PKCS#12, by whatever library."""
    spoken = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if any(PACK in str(value).lower() for field, value in ast.iter_fields(node) if field in ("id", "attr", "name"))
        or (isinstance(node, ast.ImportFrom) and PACK in (node.module or ""))
    }
    assert spoken == set()


def test_the_issuing_api_neither_takes_nor_gives_a_private_key() -> None:
    """An order is a profile and a request that its key has signed; no word of the API's description is of keys."""
    assert set(OrderRequest.model_fields) == {"profile", "csr"}
    app, nothing = web.Application(), cast(Any, None)  # whoever only describes routes serves none
    add_routes(app, nothing, nothing, nothing)
    validation_api.add_routes(app, nothing, nothing)
    said = str(document(app, API)).lower()
    assert "csr" in said
    assert not [word for word in ("private", "pkcs12", "pkcs#12", "p12", "pfx", "passphrase") if word in said]
