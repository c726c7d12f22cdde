"""From a file and `--set` to a configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quash.errors import QuashError
from quash.runtime import profiles
from quash.runtime.config.model import Name
from quash.runtime.config.whole import Config


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Reads a configuration and applies `key.path=value` overrides; raises `config.*` errors that name the key."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuashError("config.missing", f"{path} does not exist; name one with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QuashError("config.syntax", f"{path}: {error}") from None
    for override in overrides:
        _set(tree, override)
    if "kinds" in tree:  # in one place alone, whole: no part of a configuration replaces a rule of a profile file
        raise QuashError("config.kinds", f"{path}: kinds: each is a file of its own, in the folder profiles beside it")
    tree["kinds"] = {**profiles.shipped(), **profiles.read(path.parent / "profiles")}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise QuashError("config.invalid", f"{path}: {_explain(error)}") from None


def check_name(name: str) -> None:
    """Raises `config.name` when an issuer cannot be called that."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise QuashError("config.name", f"{name!r}: a name has lower-case letters, digits and hyphens") from None


def _set(tree: dict[str, Any], override: str) -> None:
    key, sep, text = override.partition("=")
    if not sep or not key:
        raise QuashError("config.override", f"--set takes key.path=value, not {override!r}")
    *folders, leaf = key.split(".")
    for folder in folders:
        child = tree.setdefault(folder, {})
        if not isinstance(child, dict):
            raise QuashError("config.override", f"--set {key}: {folder} is not a table")
        tree = child
    tree[leaf] = _value(text)


def _value(text: str) -> Any:
    """A TOML value where the text is one (numbers, booleans, lists), else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}" for e in error.errors())
