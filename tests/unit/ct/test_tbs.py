"""The three forms of a TBS, and the proof that two of them belong together."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509

from issuer.ct.tbs import check_match, is_poisoned, plain, with_poison, with_scts
from issuer.signer import oids
from issuer.signer import tbs_writer as write
from quash.errors import QuashError
from quash.pki import der
from tests.unit.ct.conftest import Chain

SCTS = bytes.fromhex("0004") + b"\0\2\1\2"  # the match proof does not look into the list


def test_the_forms_are_what_pyca_reads(chain: Chain) -> None:
    """D18: the precertificate has a critical poison last and no SCTs; pyca derives the same octets for the log."""
    loaded = x509.load_der_x509_certificate(chain.precertificate)
    last = list(loaded.extensions)[-1]
    assert (last.oid.dotted_string, last.critical) == ("1.3.6.1.4.1.11129.2.4.3", True)
    assert isinstance(last.value, x509.PrecertPoison)
    final = with_scts(chain.tbs, SCTS)
    assert [is_poisoned(each) for each in (chain.tbs, chain.poisoned, final)] == [False, True, False]
    assert plain(chain.poisoned) == plain(final) == plain(chain.tbs) == chain.tbs
    assert x509.load_der_x509_certificate(chain.signed(final)).tbs_precertificate_bytes == chain.tbs
    check_match(chain.poisoned, final)


def test_every_changed_octet_breaks_the_match(chain: Chain) -> None:
    """D19: each octet of the final TBS outside the SCTs' own value, each bit pattern change, is found."""
    final = with_scts(chain.tbs, SCTS)
    value = final.index(SCTS)
    for offset in range(len(final)):
        if value <= offset < value + len(SCTS):
            continue
        mutated = final[:offset] + bytes((final[offset] ^ 0x01,)) + final[offset + 1 :]
        with pytest.raises(QuashError) as error:
            check_match(chain.poisoned, mutated)
        assert error.value.code in ("ct.mismatch", "ct.malformed"), offset


def test_every_changed_octet_of_the_precertificate_breaks_the_match(chain: Chain) -> None:
    """The same from the other side."""
    final = with_scts(chain.tbs, SCTS)
    for offset in range(len(chain.poisoned)):
        mutated = chain.poisoned[:offset] + bytes((chain.poisoned[offset] ^ 0x01,)) + chain.poisoned[offset + 1 :]
        with pytest.raises(QuashError) as error:
            check_match(mutated, final)
        assert error.value.code in ("ct.mismatch", "ct.malformed"), offset


def _reordered(tbs: bytes) -> bytes:
    """The same TBS with its first two extensions exchanged."""
    start, end = der.only(tbs, der.SEQUENCE)
    *_, (_, offset, begin, stop) = der.children(tbs, start, end)
    inner = tbs[begin:stop]
    first, second, *rest = [inner[at:to] for _, at, _, to in der.children(inner, *der.only(inner, der.SEQUENCE))]
    return der.tlv(der.SEQUENCE, tbs[start:offset], der.tlv(0xA3, der.tlv(der.SEQUENCE, second, first, *rest)))


def test_what_does_not_belong_together_is_refused(chain: Chain) -> None:
    """Other order, no SCTs, two precertificates, two lists, another extension in the list's place."""
    final = with_scts(chain.tbs, SCTS)
    other = chain.poisoned.replace(chain.poisoned[-20:], b"")  # not even DER
    for wrong in (chain.tbs, chain.poisoned, _reordered(final), other, final + b"\0", b""):
        with pytest.raises(QuashError):
            check_match(chain.poisoned, wrong)
    for made in (with_poison, lambda tbs: with_scts(tbs, SCTS)):
        for has in (chain.poisoned, final):
            with pytest.raises(QuashError, match=r"ct\.malformed"):
                made(has)
    with contextlib.suppress(QuashError):
        check_match(final, chain.poisoned)
        pytest.fail("a final TBS is no precertificate")


def test_an_extension_too_many_is_found(chain: Chain) -> None:
    """An SCT list and one more extension is not the match of a precertificate without it."""
    start, end = der.only(chain.tbs, der.SEQUENCE)
    *_, (_, offset, begin, stop) = der.children(chain.tbs, start, end)
    inner = chain.tbs[begin:stop]
    extensions = [inner[at:to] for _, at, _, to in der.children(inner, *der.only(inner, der.SEQUENCE))]
    more = [*extensions, write.policy(oids.POLICY_OV)]
    tbs = der.tlv(der.SEQUENCE, chain.tbs[start:offset], der.tlv(0xA3, der.tlv(der.SEQUENCE, *more)))
    with pytest.raises(QuashError, match=r"ct\.mismatch"):
        check_match(chain.poisoned, with_scts(tbs, SCTS))
