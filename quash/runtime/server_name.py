"""What our HTTP servers call themselves: aiohttp would name itself and Python with their versions in every answer."""

from __future__ import annotations

from aiohttp import web_response


def hide_versions() -> None:
    """Makes every aiohttp server of this process say `Server: Quash`, also where its parser refuses a request."""
    # No hook of aiohttp sees the parser's refusals; a test asks for both kinds.
    web_response.SERVER_SOFTWARE = "Quash"  # type: ignore[attr-defined]
