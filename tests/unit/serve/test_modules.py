"""The responder's security context: no key, no database."""

from __future__ import annotations

import subprocess
import sys


def test_serving_loads_neither_keys_nor_a_database() -> None:
    """The modules of a worker, all of them imported, bring neither asyncpg nor quash.keys, quash.store nor pkcs11."""
    program = "import responder.serve.main, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"lmdb", "aiohttp", "responder.serve.answer", "quash.cache.reader"} <= set(loaded)
    assert not {"asyncpg", "quash.keys", "quash.store", "pkcs11", "responder.follow", "quash.cache.fsck"} & set(loaded)
