"""What is fuzzed, and what must hold for any octets whatever: a function of octets that raises when it does not."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from quash.cache.layout import record_key
from quash.errors import QuashError
from quash.pki import der
from quash.pki.ocsp_request import OcspRequest, parse_any_request, parse_plain_request, parse_request
from tests.support.golden import SIGNED_AT, catalog, records
from tests.unit.serve.in_memory import Site


def request(octets: bytes) -> None:
    """The parser of OCSP requests: short cut and long way read the same, pyca agrees, all else is malformed (A11)."""
    plain = parse_plain_request(octets)
    try:
        parsed = parse_request(octets)
    except QuashError as error:
        if error.code == "ocsp.malformed_request" and plain is None:
            return
        raise
    assert parsed == parse_any_request(octets)
    assert plain in (None, parsed)
    assert parsed.cert_ids
    assert parsed.nonce is None or 0 < len(parsed.nonce) <= 128  # A27
    _compare(parsed, octets)


def _compare(parsed: OcspRequest, octets: bytes) -> None:
    """With pyca, which reads requests for one certificate."""
    cert_id = parsed.cert_ids[0]
    if len(parsed.cert_ids) > 1 or cert_id is None:
        return
    try:
        theirs = ocsp.load_der_ocsp_request(octets)
        hashed = theirs.hash_algorithm.name
    except (ValueError, UnsupportedAlgorithm):
        return  # stricter than we are: it refuses a version that is spelt out
    ours = (cert_id.hash.value, cert_id.name_hash, cert_id.key_hash, cert_id.serial)
    serial = der.integer_content(theirs.serial_number)
    assert (hashed, theirs.issuer_name_hash, theirs.issuer_key_hash, serial) == ours


@functools.cache
def sites() -> tuple[asyncio.AbstractEventLoop, Site, Site]:
    """The golden CAs' answers served with the fast path and without, always the same so that a corpus stays good."""
    loop = asyncio.new_event_loop()
    held = {record_key(issuer_id, serial): record for issuer_id, serial, record in records()}

    async def make(fast: bool) -> Site:
        site = Site(fast=fast, records=held)
        site.clock.step(SIGNED_AT + 3600 - site.clock.now())
        site.reader.catalog_now, site.reader.generation = catalog(), (1, 2)
        site.worker.refresh()
        return site

    return loop, loop.run_until_complete(make(True)), loop.run_until_complete(make(False))


def segment(octets: bytes) -> None:
    """The fast path: what it answers at all, the full path answers with the same octets, the Date aside."""
    loop, fast, full = sites()
    answered = fast.worker.fast.answer(octets) is not None
    list(fast.worker.fast.take_counts())
    if not answered:
        return
    expected = loop.run_until_complete(full.exchange([octets]))
    for _ in range(2):  # the second time from memory
        said = loop.run_until_complete(fast.exchange([octets]))
        assert said.fast == 1
        assert (said.octets, said.closed) == (expected.octets, expected.closed)


TARGETS: dict[str, Callable[[bytes], None]] = {"request": request, "segment": segment}
