"""The name of a CA of somebody else, as it stands in its own CSR (D15, G4, G35)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cryptography import x509

from issuer.checks.csr import SigningRequest
from quash.errors import Kind, QuashError
from quash.pki.folding import fold
from quash.pki.names import build_name, check_country, name_attributes
from quash.store.issuers import Issuer

_WORD: Final = re.compile(r"\w+")
_SAY_NOTHING: Final = frozenset(
    {
        *("a", "an", "the", "der", "die", "das", "le", "la", "les", "el", "los", "las", "il", "lo", "gli", "o", "os"),
        *("ca", "pki", "tls", "ssl", "root", "trust", "secure", "certificate", "certification", "authority", "mail"),
        *("global", "international", "national", "general", "first", "new", "public", "private", "services", "group"),
    }
)
"""Words that are in many organizations' names, or in every CA's: they tell nobody apart."""


def external_subject(der: bytes, request: SigningRequest, ours: Iterable[Issuer]) -> dict[str, str]:
    """C, O and CN of a CSR (`der`), each once and nothing else; the organization is another than ours, and in the CN.

    Raises `external.subject`, `external.ours`, `name.*`.
    """
    found = dict(request.subject)
    everything = list(x509.load_der_x509_csr(der).subject)
    if len(everything) != len(found) or set(found) != {"C", "O", "CN"}:
        raise _refuse("subject", "its subject is C, O and CN, each once, and nothing else (D15)")
    build_name(found)
    check_country(found["C"])
    if any(fold(found["O"]) == fold(own) for each in ours for own in organizations(each.subject)):
        raise _refuse("ours", f"{found['O']} is the organization of a CA of ours: no other's name has it")
    if not names_organization(found["CN"], found["O"]):
        raise _refuse("subject", "its commonName names the organization, by a word that tells it from others (G35)")
    return found


def names_organization(common_name: str, organization: str) -> bool:
    """Whether the first word of the organization that says something stands in the CN, as a word of its own.

    Of an organization without such a word, the whole name does.
    """
    words, said = _words(organization), _words(common_name)
    telling = next((word for word in words if len(word) > 1 and word not in _SAY_NOTHING), None)
    if telling is not None:
        return telling in said
    return any(said[start : start + len(words)] == words for start in range(len(said)))


def organizations(subject: bytes) -> list[str]:
    """Every O of a DER Name."""
    return [value for key, value in name_attributes(subject) if key == "O"]


def _words(text: str) -> list[str]:
    return _WORD.findall(fold(text))


def _refuse(what: str, message: str) -> QuashError:
    return QuashError(f"external.{what}", f"the CA is not signed: {message}", Kind.REFUSED)
