"""`python -m responder.presign.compare STATE`: how long a takeover compares what the world was told with the database.

Prints one line of JSON: `seconds`, and how many CRL `entries` and cached `answers` were compared, as a presigner does
before it leads. Used by `make bench-mass`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from quash.runtime.config import Config
from quash.runtime.state import State
from quash.store import issuers
from quash.store.database import connect_once
from quash.store.roles import PRESIGNER
from responder.presign.answered import check_answered
from responder.presign.published import check_published


async def main(state: State) -> None:
    """Compares and prints. Raises what a presigner would refuse to sign for."""
    conn, began = await connect_once(Config(), state, PRESIGNER), time.monotonic()
    known = await issuers.all_issuers(conn)
    entries = await check_published(conn, state.crl, known)
    answers = await check_answered(conn, state.cache, known)
    seconds = time.monotonic() - began
    conn.terminate()
    sys.stdout.write(json.dumps({"seconds": seconds, "entries": entries, "answers": answers}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(State(Path(sys.argv[1]))))
