"""Text as it is compared where spelling must tell nothing apart: width, ligatures, case and accents."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """`Ministère`, `MINISTERE` and fullwidth letters alike; letters of other scripts stay what they are."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = (each for each in unicodedata.normalize("NFKD", folded) if not unicodedata.category(each).startswith("M"))
    return unicodedata.normalize("NFKC", "".join(bare)).casefold()
