"""Reports of benchmarks, each between its two marks on a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtest.system import REPOSITORY

PERFORMANCE: Final = REPOSITORY / "docs" / "performance.md"


def write(page: Path, target: str, text: str) -> None:
    """Replaces the report of `make <target>`; raises ValueError when the page has no place for one."""
    begin, end = f"<!-- make {target} -->", f"<!-- end of make {target} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} lacks {begin} or {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
