"""Walks a cache file from one end to the other: `quash cache fsck` and `stats`, and the follower's check at its start.

`python -m quash.cache.fsck FOLDER` is the form for a file that may be damaged: LMDB may read beyond a page on the word
of a damaged one, so the process that looks is one that may die of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from quash.cache import environment as files
from quash.cache import layout
from quash.cache.environment import COMPLETE_KEY, HEARTBEAT_KEY, POSITION_KEY, Environment
from quash.cache.writer import Catalog, read_catalog
from quash.errors import QuashError

_SHOWN = 20  # faults, before only their number is kept


@dataclass(slots=True)
class IssuerCount:
    """Records of one issuer; `expired` ones are past their nextUpdate and are counted as good or revoked as well."""

    name: str
    good: int = 0
    revoked: int = 0
    expired: int = 0


@dataclass(slots=True)
class Report:
    """What a walk found. `used_bytes`: pages that hold something now. `faults`: the first few, in words."""

    issuers: dict[int, IssuerCount] = field(default_factory=dict)
    signers: int = 0
    records: int = 0
    heartbeat: int | None = None
    complete: bool = False
    position: str = ""
    file_bytes: int = 0
    used_bytes: int = 0
    fault_count: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.fault_count += 1
        if len(self.faults) < _SHOWN:
            self.faults.append(what)


def examine(folder: Path, now: int) -> Report:
    """Walks the file beside its readers and writer; `now` decides what counts as expired.

    Pins the pages of one moment until it is done. Raises `cache.missing` when there is no file that can be opened.
    """
    environment = files.open_for_reading(folder)
    report = Report()
    try:
        with environment.env.begin() as txn:
            _head(txn, environment, report)
            _walk(txn, environment, report, now)
    except lmdb.Error as error:
        report.fault(f"LMDB: {error}")
    finally:
        environment.close()
    return report


def _head(txn: Any, environment: Environment, report: Report) -> None:
    meta = environment.meta
    report.position = (txn.get(POSITION_KEY, db=meta) or b"").decode("ascii", "replace")
    report.complete = txn.get(COMPLETE_KEY, db=meta) is not None
    stats = [txn.stat(db) for db in (environment.records, environment.issuers, environment.signers, meta)]
    pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
    report.used_bytes = pages * environment.env.stat()["psize"]
    report.file_bytes = environment.path.stat().st_size
    try:
        heartbeat = txn.get(HEARTBEAT_KEY, db=meta)
        report.heartbeat = None if heartbeat is None else layout.decode_heartbeat(heartbeat)
    except QuashError as error:
        report.fault(f"heartbeat: {error.message}")


def _walk(txn: Any, environment: Environment, report: Report, now: int) -> None:
    try:
        catalog = read_catalog(txn, environment)
    except QuashError as error:
        report.fault(f"issuers and signers: {error.message}")
        catalog = Catalog()
    report.signers = len(catalog.templates)
    report.issuers = {issuer_id: IssuerCount(row.name) for issuer_id, row in sorted(catalog.issuers.items())}
    for key, value in txn.cursor(db=environment.records):
        report.records += 1
        try:
            _count(report, catalog, key, value, now)
        except QuashError as error:
            report.fault(f"record {key.hex()}: {error.message}")


def _count(report: Report, catalog: Catalog, key: bytes, value: bytes, now: int) -> None:
    issuer_id, _ = layout.split_key(key)
    record = layout.decode_record(value)
    count, signer = report.issuers.get(issuer_id), catalog.templates.get(record.signer_id)
    if count is None:
        report.fault(f"record {key.hex()}: issuer {issuer_id} is unknown")
        return
    if signer is None or signer.issuer_id != issuer_id:
        report.fault(f"record {key.hex()}: signer {record.signer_id} is unknown, or another issuer's")
    count.good += record.reason is None
    count.revoked += record.reason is not None
    count.expired += record.next_update < now


def check_structure(folder: Path) -> str:
    """The first fault or "": reads every page and each entry's outside; a second or two for a million."""
    try:
        environment = files.open_for_reading(folder)
        try:
            with environment.env.begin() as txn:
                return _check_structure(txn, environment)
        finally:
            environment.close()
    except (QuashError, lmdb.Error) as error:
        return str(error)


def _check_structure(txn: Any, environment: Environment) -> str:
    read_catalog(txn, environment)
    count, last = 0, b""
    for key, value in txn.cursor(db=environment.records):
        if key <= last:
            return f"record {key.hex()} is out of order"
        layout.decode_record(value)
        count, last = count + 1, key
    expected = txn.stat(environment.records)["entries"]
    return "" if count == expected else f"{count} records, where {expected} should be"


def main(folder: str) -> int:
    """0: sound. 1: a fault, told on stdout. Any other status: LMDB died of it."""
    fault = check_structure(Path(folder))
    sys.stdout.write(fault)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
