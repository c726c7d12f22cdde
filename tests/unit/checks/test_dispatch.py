"""The faster look by pkilint's validators: it finds what pkilint as it comes finds, in the same order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pkilint import loader
from pkilint.cabf import EXTENSION_MAPPINGS as TLS_MAPPINGS
from pkilint.cabf import smime
from pkilint.document import PDUNode
from pyasn1_alt_modules import rfc3739, rfc5280

from issuer.checks import parts
from issuer.checks.dispatch import speed_up
from issuer.checks.findings import EMAIL_DOCUMENTS, TLS_DOCUMENTS
from issuer.checks.pkilinting import family_of, stock
from quash.pki import der
from tests.unit.checks.test_lint import BROKEN, twin

TWINS: dict[str, Callable[[], bytes]] = {"good": twin, "internal": lambda: twin(names=("host.internal",)), **BROKEN}
GOLDEN = sorted(
    each for each in (Path(__file__).parents[2] / "golden" / "certificates").glob("*.der") if "outside" not in each.name
)
DOCUMENTS = [
    TLS_DOCUMENTS[0],
    *(pytest.param(each, marks=pytest.mark.long) for each in (*TLS_DOCUMENTS[1:], *EMAIL_DOCUMENTS)),
]
TIMES = 4  # first sight, one that is learned from, and two that repeat it


@cache
def theirs(document: str) -> Any:
    return stock(document)


def found(results: Any) -> list[tuple[str, str, list[tuple[str, str | None]]]]:
    """Every validator that found something: its name, the node, and what."""
    return [
        (
            each.validator.name,
            each.node.path,
            [(str(one.finding.code), one.message) for one in each.finding_descriptions],
        )
        for each in results
        if each.finding_descriptions
    ]


def said(look: Callable[[bytes], Any], octets: bytes) -> Any:
    """What a look finds, or how it fails."""
    try:
        return found(look(octets))
    except Exception as error:  # noqa: BLE001 - whatever it is: both fail alike
        return type(error).__name__, str(error)


def by_pkilint(document: str) -> Callable[[bytes], Any]:
    return lambda octets: theirs(document).validate(loader.load_certificate(octets, "twin").root)


def by_parts(document: str) -> Callable[[bytes], Any]:
    """As `pkilinting.findings` does, with a memory of its own."""
    ours = speed_up(stock(document))
    parts._remembered.cache_clear()

    def look(octets: bytes) -> Any:
        loaded = parts.load(octets, "twin", family_of(document))
        results = ours.validate(loaded.root)
        parts.remember(loaded)
        return results

    return look


def nodes(node: PDUNode) -> Iterator[PDUNode]:
    yield node
    for child in node.children.values():
        yield from nodes(child)


def cut(octets: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Fields of the TBS but extensions, extensions, and what follows the TBS."""
    tbs, *outside = (octets[start:end] for _, start, _, end in der.children(octets, *der.only(octets, der.SEQUENCE)))
    *fields, last = ((start, begin, end) for _, start, begin, end in der.children(tbs, *der.only(tbs, der.SEQUENCE)))
    begin, end = der.expect(tbs, last[1], der.SEQUENCE)
    extensions = [tbs[start:stop] for _, start, _, stop in der.children(tbs, begin, end)]
    return [tbs[start:stop] for start, _, stop in fields], extensions, outside


def joined(fields: list[bytes], extensions: list[bytes], outside: list[bytes]) -> bytes:
    listed = der.tlv(0xA3, der.tlv(der.SEQUENCE, *extensions))
    return der.tlv(der.SEQUENCE, der.tlv(der.SEQUENCE, *fields, listed), *outside)


def spoiled(octets: bytes, dice: random.Random) -> bytes:
    """One octet of it is another."""
    at = dice.randrange(len(octets))
    return octets[:at] + bytes((dice.randrange(256),)) + octets[at + 1 :]


def extension(oid: str, *value: bytes) -> bytes:
    """One that is not critical."""
    return der.tlv(der.SEQUENCE, der.oid(oid), der.tlv(der.OCTET_STRING, *value))


EXTRA = (
    extension("2.5.29.36", bytes.fromhex("3003800100")),  # policyConstraints
    extension("2.5.29.37", der.tlv(der.SEQUENCE, der.oid("1.3.6.1.5.5.7.3.8"))),  # extKeyUsage: timeStamping
    extension("2.5.29.17", der.tlv(der.SEQUENCE, der.tlv(0x82, b"2.0.192.in-addr.arpa"))),
    extension("2.5.29.15", bytes.fromhex("03020780")),  # keyUsage: digitalSignature, not critical
    extension("2.5.29.15", bytes.fromhex("03020520")),  # keyEncipherment
)
NONE = extension("1.3.9999.1", b"\5\0")
"""Stands where another one is left out, so that those behind it keep their places."""
OLD = der.tlv(der.SEQUENCE, *(der.utc_or_generalized_time(1_577_836_800 + day * 86_400) for day in (0, 90)))


def mixtures(count: int, seed: int) -> Iterator[bytes]:
    """Certificates put together from parts of others, whole ones and spoiled ones, so that each comes often.

    In each place stand a few of one kind, or none would come again: a part is known by its place too.
    """
    dice = random.Random(seed)
    sources = [cut(path.read_bytes()) for path in GOLDEN]
    kinds: dict[bytes, list[bytes]] = {}
    for each in sorted({each for _, extensions, _ in sources for each in extensions}) + list(EXTRA):
        start, end = der.only(each, der.SEQUENCE)
        kinds.setdefault(each[start : der.expect(each, start, der.OID, end)[1]], []).append(each)
    places = [
        [*dice.sample(kind, min(len(kind), 4)), *(each for each in EXTRA if each in kind), NONE]
        for kind in kinds.values()
    ]
    odd = [spoiled(place[0], dice) for place in places]
    fields = [[dice.choice(sources)[0][place] for _ in range(4)] for place in range(7)]
    fields[4].append(OLD)
    for _ in range(count):
        chosen = [dice.choice(place) for place in places]
        if dice.random() < 0.3:
            at = dice.randrange(len(places))
            chosen[at] = odd[at]
        yield joined([dice.choice(field) for field in fields], chosen, dice.choice(sources)[2])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_both_looks_find_the_same(document: str) -> None:
    """Golden and broken certificates, of this document type and of others, as often as it takes to repeat (D47)."""
    look, seen = by_parts(document), {}
    twins = {name: make() for name, make in TWINS.items()} | {path.stem: path.read_bytes() for path in GOLDEN}
    for name, octets in twins.items():
        seen[name] = said(by_pkilint(document), octets)
    for _ in range(TIMES):
        for name, octets in twins.items():
            assert said(look, octets) == seen[name], name
    assert any(isinstance(each, list) and each for each in seen.values())
    assert len(theirs(document).validate(loader.load_certificate(twins["good"], "twin").root)) > 50


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_remembered_of_a_part_holds_beside_any_others(document: str) -> None:
    """D47: each part beside many others, so that a validator that looks at two of them would be found out."""
    look, kinds = by_parts(document), set()
    for octets in mixtures(250, seed=7):
        wanted = said(by_pkilint(document), octets)
        assert said(look, octets) == wanted
        kinds |= {code for _, _, findings in wanted for code, _ in findings} if isinstance(wanted, list) else set()
    assert len(kinds) > 25  # of findings: the mixtures are broken in many ways
    assert parts._remembered.cache_info().hits > 2000  # and they do repeat


def test_the_tree_of_parts_is_the_tree_of_the_whole() -> None:
    """Each node: its place, its kind, its tags and its value; of what was decoded before, and is planted again, too."""
    parts._remembered.cache_clear()
    for octets in [path.read_bytes() for path in GOLDEN] * 2:
        whole, made = loader.load_certificate(octets, "twin"), parts.load(octets, "twin", "tls")
        assert parts.parts_of(made)
        parts.remember(made)
        for left, right in zip(nodes(whole.root), nodes(made.root), strict=True):
            assert (left.path, left.name, type(left.pdu), left.pdu.tagSet) == (
                right.path,
                right.name,
                type(right.pdu),
                right.pdu.tagSet,
            )
            assert left.pdu.prettyPrint() == right.pdu.prettyPrint()
            assert (right.document is made, right.children.keys()) == (True, left.children.keys())
            assert right.parent is None or right.parent.children[right.name] is right


def test_what_no_decoder_takes_is_left_to_pkilint() -> None:
    """Spoiled certificates: whoever can read one, the other can, and to the same tree."""
    dice, left_alone = random.Random(11), 0
    whole = GOLDEN[3].read_bytes()
    fields, extensions, outside = cut(whole)
    odd = [
        joined([bytes.fromhex("a003020100"), *fields[1:]], extensions, outside),  # version 1, which is a default
        joined(fields[1:], extensions, outside),
        joined(fields, [], outside),
        joined([*fields, bytes.fromhex("81020001")], extensions, outside),
        joined(fields, extensions, outside[:1]),
        whole + b"\0",
        b"-----BEGIN CERTIFICATE-----",
        b"",
    ]
    for octets in [*odd, *(spoiled(whole, dice) for _ in range(400))]:
        trees: list[Any] = []
        for load in (loader.load_certificate, lambda octets, name: parts.load(octets, name, "tls")):
            try:
                loaded = load(octets, "twin")
                trees.append([(node.path, node.pdu.prettyPrint()) for node in nodes(loaded.root)])
            except Exception as error:  # noqa: BLE001 - as above
                trees.append((type(error).__name__, str(error)))
        assert trees[0] == trees[1]
        left_alone += isinstance(trees[0], tuple)
    assert 20 < left_alone < 400


def test_large_parts_are_not_remembered() -> None:
    """Whoever orders certificates of a hundred names each takes no memory from the others."""
    octets = twin(names=tuple(f"host-{number}.example.org" for number in range(150)))
    (large,) = (index for index, each in enumerate(cut(octets)[1]) if len(each) > parts._LARGE)
    first, second = (parts.parts_of(parts.load(octets, "twin", "tls")) for _ in range(2))
    again = {path for path, part in first.items() if second[path] is part}
    assert first.keys() - again == {f"certificate.tbsCertificate.extensions.{large}"}


def test_whoever_asks_a_document_decodes_no_more_than_the_decoders_did() -> None:
    """pkilint's certificate decodes five extensions when it is asked for them: as the decoders have them already."""
    wanted = {
        rfc5280.id_ce_basicConstraints: rfc5280.BasicConstraints,
        rfc5280.id_ce_certificatePolicies: rfc5280.CertificatePolicies,
        rfc5280.id_ce_extKeyUsage: rfc5280.ExtKeyUsageSyntax,
        rfc5280.id_ce_subjectAltName: rfc5280.SubjectAltName,
        rfc3739.id_pe_qcStatements: rfc3739.QCStatements,
    }
    for mappings in (TLS_MAPPINGS, smime._SMIME_EXTENSION_MAPPINGS):
        assert {oid: type(mappings[oid]) for oid in wanted} == wanted
