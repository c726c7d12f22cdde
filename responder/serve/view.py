"""What a worker knows beside the records: issuers by CertID and by path, signers' templates, freshness.

Made anew when the catalog changes and never changed, so that an answer sees one state of things from first to last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from quash.cache.layout import IssuerRow
from quash.cache.writer import Catalog
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.certid import CertIdHash, issuer_hashes
from quash.pki.ocsp_response import ResponseTemplate
from responder.serve.freshness import Freshness


@dataclass(frozen=True, slots=True)
class ServedIssuer:
    """`max_age`: seconds that HTTP caches may keep an answer (A36). `signs_nonces`: live, if the signer can (A27)."""

    issuer_id: int
    max_age: int
    name: str = ""
    signs_nonces: bool = False


@dataclass(frozen=True, slots=True)
class Directory:
    """`issuers`: by name hash + key hash, whose lengths tell the algorithms apart. `paths`: raw octets without slashes
    around them (G45), `depth` the most segments one has. `templates`: by signer."""

    issuers: Mapping[bytes, ServedIssuer] = field(default_factory=dict)
    paths: Mapping[bytes, int] = field(default_factory=dict)
    depth: int = 0
    templates: Mapping[int, ResponseTemplate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """Everything an answer depends on, but for the records and the time."""

    directory: Directory
    freshness: Freshness


def directory_of(catalog: Catalog, sign_nonces: Collection[str] = ()) -> Directory:
    """Precomputes; where two issuers have the same name and key, the older one answers. `sign_nonces`: for whom."""
    rows = sorted(catalog.issuers.values(), key=lambda row: -row.issuer_id)
    issuers = {
        b"".join(issuer_hashes(row.subject, row.spki, algorithm)): ServedIssuer(
            row.issuer_id, row.max_age, row.name, row.name in sign_nonces
        )
        for row in rows
        for algorithm in CertIdHash
    }
    paths = {row.ocsp_path.encode(): row.issuer_id for row in rows if row.ocsp_path}
    depth = max((path.count(b"/") + 1 for path in paths), default=0)
    templates = {
        row.signer_id: _template(catalog.issuers[row.issuer_id], row.certificate, row.algorithm)
        for row in catalog.templates.values()
        if row.issuer_id in catalog.issuers
    }
    return Directory(issuers, paths, depth, templates)


def _template(issuer: IssuerRow, certificate: bytes, algorithm: str) -> ResponseTemplate:
    return ResponseTemplate(
        issuer_subject=issuer.subject,
        issuer_spki=issuer.spki,
        signer_certificate=certificate,
        algorithm=SIGNATURE_ALGORITHMS[algorithm],
    )
