"""config/production.toml: every key that there is, each with a comment, and no secret."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from quash.errors import QuashError
from quash.runtime.config import Config, load

FILE = Path(__file__).parents[3] / "config" / "production.toml"
# Files of their own, which no configuration can hold.
FILES = {"kinds"}
# All that an example shows and production refuses.
DEMONSTRATION = "issuance.require_validation=false"
_OFF = re.compile(r"^#(?=\[|[a-z_0-9-]+ = )", re.MULTILINE)  # `#key = value`; prose has a space behind the #
_KEY = re.compile(r"^#?([a-z_0-9-]+) = ")
_TABLE = re.compile(r"^#?\[+([a-z_0-9.]+)\]+")
# Where an HSM's token is: a URI with a PIN in it is refused (quash.keys.uri).
TOKENS = {"keys.ca_token", "keys.ocsp_token"}
_SECRET = re.compile(r"password|passphrase|token|credential|secret|pin\b")


def models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models(argument)]


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if path in FILES:
            continue
        inner = models(field.annotation)
        if not inner:
            yield path
        for each in inner:
            yield from keys(each, f"{path}.")


def has(tree: Any, path: str) -> bool:
    """Whether a key stands in a table, or in any of several."""
    if isinstance(tree, list):
        return any(has(each, path) for each in tree)
    name, _, rest = path.partition(".")
    return isinstance(tree, dict) and name in tree and (not rest or has(tree[name], rest))


@pytest.fixture(scope="module")
def text() -> str:
    return FILE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def everything(text: str) -> str:
    """The file with all that is commented out switched on."""
    return _OFF.sub("", text)


def test_it_loads_as_it_ships_and_with_every_example_switched_on(everything: str, tmp_path: Path) -> None:
    """Whoever takes a comment sign away finds a valid example."""
    shipped = load(FILE)
    assert shipped.issuance.require_validation
    assert not shipped.ct_log.enabled
    assert not shipped.drills.allowed
    path = tmp_path / "production.toml"
    path.write_text(everything, encoding="utf-8")
    with pytest.raises(QuashError, match=r"lint\.exempt: only where"):
        load(path)
    assert load(path, (DEMONSTRATION,)).publish.s3 is not None


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_a_file_is_no_key(name: str) -> None:
    with pytest.raises(QuashError, match="a file of its own"):
        load(FILE, (f"{name}.dv.days=90",))


def test_every_key_is_there(everything: str) -> None:
    """A key that the configuration knows and this file does not is one that nobody sets."""
    tree = tomllib.loads(everything)
    assert [key for key in keys(Config) if not has(tree, key)] == [], f"describe them in {FILE.name}"


def test_every_key_is_commented(text: str) -> None:
    """Where it stands for the first time, in the line above, by words of its own: "As above" tells nothing."""
    seen: set[str] = set()
    bare = []
    table, above = "", ""
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = found[1]
        elif (found := _KEY.match(line)) and f"{table}.{found[1]}" not in seen:
            seen.add(f"{table}.{found[1]}")
            if not above.startswith("# ") or above.lower().startswith("# as above"):
                bare.append(f"{table}.{found[1]}")
        above = line
    assert bare == []
    assert len(seen) > 100


def test_secrets_are_files() -> None:
    """What names a secret in any model is a path, so that no configuration can hold one."""

    def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, field in model.model_fields.items():
            yield f"{prefix}{name}", field.annotation
            for each in models(field.annotation):
                yield from fields(each, f"{prefix}{name}.")

    secrets = {name: kind for name, kind in fields(Config) if _SECRET.search(name) and name not in TOKENS}
    assert len(secrets) >= 9
    assert {name for name, kind in secrets.items() if not set(get_args(kind)) <= {Path, type(None)}} == set()
    assert {name for name in secrets if not name.endswith("_file")} == set()
