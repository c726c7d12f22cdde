"""Certificates that are not leaves, as bytes to be signed: root (D14), TLS sub-CA (D15), OCSP signer (A14-A17).

Whatever stands here is checked again by `certificate_checks` and by the linter before a key signs it.
"""

from __future__ import annotations

from typing import Final

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.tbs_writer import Frame
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.names import build_name, name_attributes
from quash.store.issuers import Issuer

RESERVED_POLICIES: Final = {"dv": oids.POLICY_DV, "ov": oids.POLICY_OV}
_COMMON_NAME_LIMIT: Final = 64
_NULL: Final = bytes.fromhex("0500")


def root(frame: Frame) -> bytes:
    """TBSCertificate of a self-signed root."""
    own = write.key_identifier(frame.spki)
    return write.write_tbs(
        frame,
        write.basic_constraints(write.CA),
        write.key_usage(write.KEY_CERT_SIGN_AND_CRL_SIGN),
        write.subject_key(own),
        write.authority_key(own),
    )


def sub_ca(
    frame: Frame, *, parent_key_id: bytes, policy: str, crl_url: str, ocsp_url: str, ca_issuers_url: str
) -> bytes:
    """TBSCertificate of a TLS sub-CA below which only leaves stand; `policy` is a reserved OID."""
    return write.write_tbs(
        frame,
        write.basic_constraints(write.LAST_CA),
        write.key_usage(write.KEY_CERT_SIGN_AND_CRL_SIGN),
        write.extended_key_usage(oids.SERVER_AUTH),
        write.policy(policy),
        write.subject_key(write.key_identifier(frame.spki)),
        write.authority_key(parent_key_id),
        write.authority_access(ocsp=ocsp_url, ca_issuers=ca_issuers_url),
        write.crl_distribution_point(crl_url),
    )


def ocsp_signer(frame: Frame, *, issuer_key_id: bytes) -> bytes:
    """TBSCertificate of a delegated OCSP signer: no CRLDP, no AIA, since nobody asks for its status (A15, A16)."""
    return write.write_tbs(
        frame,
        write.key_usage(write.DIGITAL_SIGNATURE),
        write.extended_key_usage(oids.OCSP_SIGNING),
        write.extension(oids.OCSP_NOCHECK, _NULL),
        write.subject_key(write.key_identifier(frame.spki)),
        write.authority_key(issuer_key_id),
    )


def ocsp_signer_subject(issuer: Issuer, number: int) -> bytes:
    """Country and organization of the issuer, and a name of its own (A17)."""
    attributes = dict(name_attributes(issuer.subject))
    suffix = f" OCSP {number}"
    name = attributes.get("CN", issuer.name)[: _COMMON_NAME_LIMIT - len(suffix)].rstrip() + suffix
    return build_name({key: attributes[key] for key in ("C", "O") if key in attributes} | {"CN": name})


def algorithm_of(issuer: Issuer) -> SignatureAlgorithm:
    return SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
