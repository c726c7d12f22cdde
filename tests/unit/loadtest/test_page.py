"""Where benchmarks write what they found."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import page


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    """Between its own marks alone; the page around it is somebody's prose."""
    file = tmp_path / "page.md"
    file.write_text("a\n<!-- make x -->\nold\n<!-- end of make x -->\nb\n<!-- make y -->\n<!-- end of make y -->\nc\n")
    page.write(file, "y", "second")
    page.write(file, "x", "first")
    assert file.read_text() == (
        "a\n<!-- make x -->\nfirst\n<!-- end of make x -->\nb\n<!-- make y -->\nsecond\n<!-- end of make y -->\nc\n"
    )


@pytest.mark.parametrize("text", ["", "<!-- make x -->\n", "<!-- end of make x -->\n<!-- make x -->\n"])
def test_a_page_without_a_place_is_left_alone(tmp_path: Path, text: str) -> None:
    """A missing mark must not cost the rest of the page."""
    file = tmp_path / "page.md"
    file.write_text(text)
    with pytest.raises(ValueError, match="lacks"):
        page.write(file, "x", "new")
    assert file.read_text() == text


@pytest.mark.parametrize("target", ["bench-crl", "bench-mass", "bench-ocsp", "bench-origin", "bench-signing"])
def test_every_benchmark_has_its_place(target: str) -> None:
    assert f"<!-- make {target} -->" in page.PERFORMANCE.read_text()
