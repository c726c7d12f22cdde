"""Waiting until everything is ready."""

from __future__ import annotations

from typing import Any

import pytest

from quash.cli import up


class Reports:
    """An overview that says what it is told, one after the other, and then that all is well."""

    def __init__(self, *late: str) -> None:
        self._late = list(late)

    async def reports(self) -> dict[str, Any]:
        late = self._late.pop(0) if self._late else ""
        return {
            name: {"ready": name != late, "checks": {"crls": {"ok": name != late, "detail": "old.crl: crl.lint"}}}
            for name in ("responder-1", "crl-builder", "presigner")
        }


async def test_who_is_late_is_told_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder that cannot publish one CRL must not take OCSP out: a warning, and it goes on."""
    monkeypatch.setattr(up, "_WARN_AFTER", 0.0)
    said: list[str] = []
    warned: list[str] = []
    late = ["crl-builder"] * 3 + ["presigner"]
    await up._until_ready(Reports(*late), said.append, warned.append)  # type: ignore[arg-type]
    assert said == [f"waiting for {name}" for name in late]
    assert warned == [
        f"warning: up.not_ready: {name}: crls old.crl: crl.lint; all others serve on; see the log folder"
        for name in ("crl-builder", "presigner")
    ]
