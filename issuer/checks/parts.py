"""A certificate in its parts, so that pkilint decodes no second time what it has seen before.

Nearly all certificates of a profile share all but serial, validity, subject, key, names and SCTs; a precertificate and
its final certificate share most of those too. Each part is decoded for itself and remembered by its octets. The tree
that pkilint looks at is the same as if it had decoded the whole (`tests/unit/checks/test_dispatch.py`); what is not
shaped as a leaf of ours is left to pkilint.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, Final

from pkilint import loader
from pkilint.document import PDUNode, decode_der
from pkilint.pkix.certificate import RFC5280Certificate
from pyasn1.error import PyAsn1Error
from pyasn1_alt_modules import rfc5280

from quash.errors import QuashError
from quash.pki import der

_MOST: Final = 512
"""Parts: those that all certificates share, and those of precertificates whose final ones come in a moment."""
_LARGE: Final = 2048
"""Octets of a part that is not remembered: values and nodes of a hundred names take two hundred times as many."""
_CERTIFICATE: Final = rfc5280.Certificate()
_TBS: Final = _CERTIFICATE.componentType["tbsCertificate"].asn1Object
_EXTENSIONS: Final = _TBS.componentType["extensions"].asn1Object
_NAMES: Final = tuple(_TBS.componentType)
_FIELDS: Final = ("version", "serialNumber", "signature", "issuer", "validity", "subject", "subjectPublicKeyInfo")
_TAGS: Final = [0xA0, der.INTEGER, *[der.SEQUENCE] * 5, 0xA3]
_OUTSIDE: Final = ("signatureAlgorithm", "signature")
_OUTSIDE_TAGS: Final = [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]
_SPECS: Final = {
    **{f"certificate.tbsCertificate.{name}": _TBS.componentType[name].asn1Object for name in _FIELDS},
    **{f"certificate.{name}": _CERTIFICATE.componentType[name].asn1Object for name in _OUTSIDE},
}
_VERSION_3: Final = bytes.fromhex("a003020102")
_CHECKED: Final = {"verifyConstraints": False, "matchTags": False, "matchConstraints": False}
"""Was checked when it was decoded: as the decoder itself puts values together."""


class Part:
    """What became of one part the first time: its value, its nodes, and what is said of it by whom."""

    __slots__ = ("pdu", "tree", "verdicts")

    def __init__(self, pdu: Any) -> None:
        self.pdu = pdu
        self.tree: _Tree | None = None
        self.verdicts: dict[Any, Any] = {}


class _Tree:
    """A node with all below it, of no document."""

    __slots__ = ("below", "name", "path", "pdu")

    def __init__(self, node: PDUNode) -> None:
        self.name, self.path, self.pdu = node.name, node.path, node.pdu
        self.below = [_Tree(child) for child in node.children.values()]

    def plant(self, document: RFC5280Certificate, parent: PDUNode) -> PDUNode:
        """The nodes that pkilint would make below `parent`, with what it decodes of them later."""
        node = _Planted.__new__(_Planted)
        node.document, node.name, node.pdu, node.parent, node.path = document, self.name, self.pdu, parent, self.path
        node.below = self.below
        return node


class _Planted(PDUNode):  # type: ignore[misc]  # pkilint has no types
    """A node of a part that comes again. Those below it are made when somebody looks, which for most nobody does."""

    below: list[_Tree]

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not there yet."""
        if name != "children":
            raise AttributeError(name)
        self.children = {tree.name: tree.plant(self.document, self) for tree in self.below}
        return self.children


class _Parts(RFC5280Certificate):  # type: ignore[misc]  # pkilint has no types
    """pkilint's certificate, made of parts; `parts` are by the path of their nodes."""

    not_before = cached_property(RFC5280Certificate.not_before.fget)  # asked for several times a look
    not_after = cached_property(RFC5280Certificate.not_after.fget)

    def __init__(self, octets: bytes, name: str, parts: dict[str, Part]) -> None:
        super().__init__(None, octets, name)
        self.parts = parts
        tbs, whole = _TBS.clone(), _CERTIFICATE.clone()
        extensions = _EXTENSIONS.clone()
        self.root = _node(self, "certificate", whole, None, "certificate")
        top = _node(self, "tbsCertificate", tbs, self.root, "certificate.tbsCertificate")
        listed = _node(self, "extensions", extensions, top, "certificate.tbsCertificate.extensions")
        for path, part in parts.items():
            above, _, name = path.rpartition(".")
            node = listed if above == listed.path else top if above == top.path else self.root
            node.children[name] = self._below(node, name, part)
            if node is listed:
                extensions.setComponentByPosition(int(name), part.pdu, **_CHECKED)
            elif node is top:
                tbs.setComponentByPosition(_NAMES.index(name), part.pdu, **_CHECKED)
        tbs.setComponentByName("extensions", extensions, **_CHECKED)
        for position, pdu in enumerate((tbs, *(parts[f"certificate.{name}"].pdu for name in _OUTSIDE))):
            whole.setComponentByPosition(position, pdu, **_CHECKED)
        top.children["extensions"] = listed
        self.root.children = {"tbsCertificate": top, **self.root.children}

    def _below(self, parent: PDUNode, name: str, part: Part) -> PDUNode:
        if part.tree is not None:
            return part.tree.plant(self, parent)
        return PDUNode(self, name, part.pdu, parent)


def load(octets: bytes, name: str, family: str) -> RFC5280Certificate:
    """As pkilint's loader. `family`: certificates of one are decoded alike, names and extensions within too."""
    try:
        cut = _cut(octets)
        parts = {path: _part(family, path, part) for path, part in cut.items()}
    except (QuashError, PyAsn1Error, ValueError):
        return loader.load_certificate(octets, name)
    return _Parts(octets, name, parts)


def remember(document: RFC5280Certificate) -> None:
    """Once pkilint has looked at a document: what it decoded of the parts by then is theirs."""
    for path, part in parts_of(document).items():
        if part.tree is None:
            part.tree = _Tree(document.root.navigate(path.partition(".")[2]))


def parts_of(document: RFC5280Certificate) -> dict[str, Part]:
    """Parts by the path of their nodes; none of a document that pkilint loaded by itself."""
    return document.parts if isinstance(document, _Parts) else {}


def _node(document: RFC5280Certificate, name: str, pdu: Any, parent: PDUNode | None, path: str) -> PDUNode:
    """pkilint's node without children: what its constructor would make of `pdu` is known."""
    node = PDUNode.__new__(PDUNode)
    node.document, node.name, node.pdu, node.parent, node.path, node.children = document, name, pdu, parent, path, {}
    return node


def _cut(octets: bytes) -> dict[str, bytes]:
    """The parts (DER) of a certificate of version 3 with extensions and no unique identifiers. Raises `der.malformed`.

    The version is the one field of which the whole says more than its octets: 1 would be a default, not to be encoded.
    """
    whole = list(der.children(octets, *der.only(octets, der.SEQUENCE)))
    if [tag for tag, *_ in whole] != _OUTSIDE_TAGS:
        raise der.malformed("a certificate")
    tbs = list(der.children(octets, *whole[0][2:]))
    if [tag for tag, *_ in tbs] != _TAGS or octets[tbs[0][1] : tbs[0][3]] != _VERSION_3:
        raise der.malformed("a TBSCertificate")
    _, _, start, end = tbs.pop()
    begin, stop = der.expect(octets, start, der.SEQUENCE, end)
    extensions = list(der.children(octets, begin, stop))
    if stop != end or not extensions or any(tag != der.SEQUENCE for tag, *_ in extensions):
        raise der.malformed("Extensions")
    fields = {f"certificate.tbsCertificate.{name}": tlv for name, tlv in zip(_FIELDS, tbs, strict=True)}
    fields |= {f"certificate.tbsCertificate.extensions.{index}": tlv for index, tlv in enumerate(extensions)}
    fields |= {f"certificate.{name}": tlv for name, tlv in zip(_OUTSIDE, whole[1:], strict=True)}
    return {path: octets[offset:finish] for path, (_, offset, _, finish) in fields.items()}


def _part(family: str, path: str, octets: bytes) -> Part:
    return _remembered(family, path, octets) if len(octets) <= _LARGE else _decoded(path, octets)


@lru_cache(maxsize=_MOST)
def _remembered(_family: str, path: str, octets: bytes) -> Part:
    return _decoded(path, octets)


def _decoded(path: str, octets: bytes) -> Part:
    pdu, _ = decode_der(octets, asn1Spec=_SPECS.get(path, _EXTENSIONS.componentType))
    return Part(pdu)
