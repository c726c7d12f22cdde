"""What every CRL of a scope must say, from the issuer's rows."""

from __future__ import annotations

from cryptography import x509

from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS
from quash.pki.crl_gate import Terms
from quash.store import issuers
from quash.store.crls import Scope
from quash.store.database import Connection


async def terms_of(conn: Connection, scope: Scope) -> Terms:
    """Reads the terms of a scope; raises `issuer.no_certificate`."""
    issuer = await issuers.get(conn, scope.issuer_id)
    certificate = await issuers.certificate(conn, scope.issuer_id)
    if issuer is None or certificate is None:
        raise QuashError("issuer.no_certificate", f"{scope.issuer} has no certificate: import it", Kind.CONFLICT)
    return Terms(
        issuer=issuer.subject,
        spki=issuer.spki,
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        authority_key_id=_subject_key_id(certificate.der),
        idp_urls=scope.idp_urls,
        only=("ca" if issuer.kind == "root" else "user") if scope.idp else None,
        not_after=certificate.not_after,
    )


def _subject_key_id(der: bytes) -> bytes:
    """The issuer's SKI (B7); of an imported CA without one, what RFC 5280 4.2.1.2 (1) makes of its key."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
