"""`make fuzz`: feeds a target with octets that libFuzzer makes up, led by the branches that they reach in our code.

Begins with the kept corpus and the golden requests. Exits with 0 when nothing failed. Octets that fail are named, and
kept below /tmp: mend the fault, then put them into tests/fuzz/corpus/TARGET, whose files `make test` replays.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha1
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tests.support.golden import CASES, sent

CORPUS = Path(__file__).parent / "corpus"
DICTIONARY = Path(__file__).parent / "words.dict"
LENGTHS = {"request": 512, "segment": 1024}  # octets, at most


def seeds(target: str) -> list[bytes]:
    """The golden requests as a target takes them: DER, or a segment of HTTP."""
    if target == "segment":
        return [sent(case) for case in CASES.values()]
    found = [bytes.fromhex(case["body"]) for case in CASES.values() if case["body"]]
    for path in (case["head"].split(" ")[1].rpartition("/")[2] for case in CASES.values() if not case["body"]):
        try:
            found.append(base64.b64decode(unquote_to_bytes(path), validate=True))
        except ValueError:
            continue  # a golden of bad base64
    return found


def fuzz(target: str, seconds: int, keep: bool = False) -> int:
    """0, or libFuzzer's status after octets that failed. `keep`: adds to the corpus what reaches more than it did."""
    folder = Path(tempfile.mkdtemp(prefix=f"quash-fuzz-{target}-"))
    found, golden, failed, kept = (folder / "found", folder / "golden", folder / "failed", CORPUS / target)
    for each in (found, golden, failed, kept):
        each.mkdir(parents=True, exist_ok=True)
    for octets in seeds(target):
        (golden / sha1(octets, usedforsecurity=False).hexdigest()).write_bytes(octets)  # as libFuzzer names its own
    command = [sys.executable, "-m", "tests.fuzz.fuzzer", target, f"-max_len={LENGTHS[target]}"]
    limits = [
        f"-max_total_time={seconds}",
        f"-dict={DICTIONARY}",
        f"-artifact_prefix={failed}/",
        "-print_final_stats=1",
    ]
    status = subprocess.run([*command, *limits, found, golden, kept], check=False).returncode
    if keep:
        subprocess.run([*command, "-merge=1", kept, golden, found], check=True)
    if status:
        sys.stdout.write(f"{target}: see {failed}\n")
    else:
        shutil.rmtree(folder)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(LENGTHS), metavar="TARGET", help=" or ".join(LENGTHS))
    parser.add_argument("--seconds", type=int, default=300, help="of each target")
    parser.add_argument("--keep", action="store_true", help="finds that reach more than the corpus does, in the corpus")
    options = parser.parse_args()
    return max(fuzz(target, options.seconds, options.keep) for target in options.targets)


if __name__ == "__main__":
    sys.exit(main())
