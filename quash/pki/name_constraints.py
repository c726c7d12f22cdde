"""NameConstraints of CA certificates (D16, D17): written one way, read strictly, and applied to names.

Of a TLS CA: permitted DNS names and directory names, every IP address excluded. Of an S/MIME CA: permitted mailboxes'
hosts and directory names. Anything else is not ours, and is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from quash.errors import Kind, QuashError
from quash.pki import der

_EMAIL, _DNS, _DIRECTORY, _IP = 0x81, 0x82, 0xA4, 0x87
_PERMITTED, _EXCLUDED = 0xA0, 0xA1
_NO_ADDRESS: Final = tuple(der.tlv(der.SEQUENCE, der.tlv(_IP, bytes(size))) for size in (8, 32))  # IPv4, IPv6: all


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """What may stand in certificates below. DNS names: themselves and all below them. E-mail: a host (`example.org`),
    or with a leading dot all hosts below it (SBR 7.1.5). Directory names: DER Names that a subject must begin with."""

    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    directory: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """DER NameConstraints: directory names last, no minimum, no maximum (D16)."""
        permitted = [
            *(der.tlv(_DNS, name.encode("ascii")) for name in self.dns),
            *(der.tlv(_EMAIL, host.encode("ascii")) for host in self.email),
            *(der.tlv(_DIRECTORY, name) for name in self.directory),
        ]
        trees = der.tlv(_PERMITTED, *(der.tlv(der.SEQUENCE, each) for each in permitted))
        return der.tlv(der.SEQUENCE, trees, der.tlv(_EXCLUDED, *_NO_ADDRESS) if self.dns else b"")

    def check_dns(self, names: Iterable[str]) -> None:
        """Raises `name.outside_constraints`."""
        for name in names:
            if not any(name == each or name.endswith(f".{each}") for each in self.dns):
                raise _outside(name)

    def check_email(self, addresses: Iterable[str]) -> None:
        """Raises `name.outside_constraints`."""
        for address in addresses:
            host = address.rpartition("@")[2]
            if not any(host.endswith(each) if each.startswith(".") else host == each for each in self.email):
                raise _outside(address)

    def check_subject(self, subject: bytes) -> None:
        """`subject`: DER Name; an empty one is under every constraint. Raises `name.outside_constraints`."""
        start, end = der.only(subject, der.SEQUENCE)
        if start < end and not any(_begins(subject[start:end], name) for name in self.directory):
            raise _outside("the subject")


def read_name_constraints(value: bytes) -> NameConstraints:
    """Reads what `encode` writes and nothing else. Raises `der.malformed`."""
    found: dict[int, list[bytes]] = {_DNS: [], _EMAIL: [], _DIRECTORY: []}
    start, end = der.only(value, der.SEQUENCE)
    begin, stop = der.expect(value, start, _PERMITTED, end)
    for tag, _, first, last in der.children(value, begin, stop):
        if tag != der.SEQUENCE:
            raise der.malformed("a subtree is a SEQUENCE")
        kind, _, inner, after = der.read_tlv(value, first, last)
        if kind not in found or after != last:
            raise der.malformed("a subtree is a DNS name, a mail host or a directory name")
        found[kind].append(value[inner:after])
    try:
        read = NameConstraints(
            tuple(each.decode("ascii") for each in found[_DNS]),
            tuple(each.decode("ascii") for each in found[_EMAIL]),
            tuple(found[_DIRECTORY]),
        )
    except UnicodeDecodeError:
        raise der.malformed("names are ASCII") from None
    if read.encode() != value:
        raise der.malformed("constraints that are not ours")
    return read


def _begins(subject: bytes, name: bytes) -> bool:
    """RFC 5280 7.1, by octets: our own names are written one way."""
    start, end = der.only(name, der.SEQUENCE)
    return subject.startswith(name[start:end])


def _outside(what: str) -> QuashError:
    return QuashError("name.outside_constraints", f"{what} is outside the issuer's name constraints", Kind.REFUSED)
