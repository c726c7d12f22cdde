"""Rules are cited by the ids of docs/requirements.toml; one that is not there holds nobody to anything."""

from __future__ import annotations

import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compliance() -> Any:
    """The tool, which is a program and no module of a package."""
    loader = SourceFileLoader("compliance", str(ROOT / "tools" / "compliance"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module


def test_every_id_that_is_cited_is_a_row(compliance: Any) -> None:
    """In code, configuration and tests."""
    rows = tomllib.loads((ROOT / "docs" / "requirements.toml").read_text(encoding="utf-8"))
    found = compliance.gather((*compliance.CODE, "tests"))
    assert {each: files for each, files in found.items() if each not in rows} == {}
    assert len(found) > len(rows) / 2


def test_an_unknown_id_is_seen(compliance: Any, tmp_path: Path) -> None:
    """In a sentence and in a range; no part of a name counts."""
    file = tmp_path / "some.py"
    sentence = "As {0}98 and {1}97-{1}98 want it; sha{1}99 is a word.".format("D", "E")
    file.write_text(f'"""{sentence}"""\n', encoding="utf-8")
    assert compliance.cited(file) == {"D98", "E97", "E98"}
