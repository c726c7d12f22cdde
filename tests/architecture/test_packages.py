"""What is installed is named one by one in pyproject.toml: nothing that a process imports may be missing there."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_package_is_installed() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    roots = {name.partition(".")[0] for name in named}
    found = {".".join(file.parent.relative_to(ROOT).parts) for root in roots for file in (ROOT / root).rglob("*.py")}
    assert roots == {"quash", "responder", "crlgen", "issuer"}
    assert set(named) == found
    assert len(named) == len(set(named))
