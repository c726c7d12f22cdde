"""The program of the lint worker: it reads CRLs on stdin and ends with its parent.

Each request is four octets of length and a CRL in DER; each answer is a JSON line, a list of findings.
"""

from __future__ import annotations

import json
import os
import sys
from typing import BinaryIO

from quash.runtime.memory import collect_rarely

PREFIX = 4
_NICE = 5  # behind the builder itself: the whole of a large CRL takes minutes


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers until the parent closes its end."""
    from quash.pki.crl_lint import findings  # noqa: PLC0415 - not in the builder's own process

    collect_rarely()  # pkilint makes objects by the thousand, and its classes are many
    while len(head := source.read(PREFIX)) == PREFIX:
        said = findings(source.read(int.from_bytes(head, "big")))
        sink.write(json.dumps(said).encode() + b"\n")
        sink.flush()


if __name__ == "__main__":
    os.nice(_NICE)
    serve(sys.stdin.buffer, sys.stdout.buffer)
