"""Certificates that are not leaves, as bytes to be signed: root (D14), sub-CA (D15-D17), OCSP signer (A14-A17).

Whatever stands here is checked again by `certificate_checks` and by the linter before a key signs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from issuer.signer import oids
from issuer.signer import tbs_writer as write
from issuer.signer.tbs_writer import Frame
from quash.errors import QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.name_constraints import NameConstraints
from quash.pki.names import build_name, name_attributes
from quash.store.issuers import Issuer

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


@dataclass(frozen=True, slots=True)
class SubCa:
    """What a sub-CA is for and where it hangs (D15-D17). Purpose and policies: dotted; URLs: the parent's services."""

    purpose: str
    policies: tuple[str, ...]
    path_length: int
    constraints: NameConstraints | None
    parent_key_id: bytes
    crl_url: str
    ocsp_url: str
    ca_issuers_url: str


def sub_ca(frame: Frame, *, shape: SubCa) -> bytes:
    """TBSCertificate of a CA of one trust purpose, below a root or another sub-CA."""
    constraints = [write.name_constraints(shape.constraints.encode())] if shape.constraints else []
    return write.write_tbs(
        frame,
        write.basic_constraints(write.last_but(shape.path_length)),
        write.key_usage(write.KEY_CERT_SIGN_AND_CRL_SIGN),
        write.extended_key_usage(shape.purpose),
        write.policy(*shape.policies),
        *constraints,
        write.subject_key(write.key_identifier(frame.spki)),
        write.authority_key(shape.parent_key_id),
        write.authority_access(ocsp=shape.ocsp_url, ca_issuers=shape.ca_issuers_url),
        write.crl_distribution_point(shape.crl_url),
    )


def ocsp_signer(frame: Frame, *, issuer_key_id: bytes) -> bytes:
    """TBSCertificate of a delegated OCSP signer: no CRLDP, no AIA, since nobody asks for its status (A15, A16, G34)."""
    return write.write_tbs(
        frame,
        write.key_usage(write.DIGITAL_SIGNATURE),
        write.extended_key_usage(oids.OCSP_SIGNING),
        write.extension(oids.OCSP_NOCHECK, _NULL),
        write.subject_key(write.key_identifier(frame.spki)),
        write.authority_key(issuer_key_id),
    )


def ocsp_signer_subject(issuer: Issuer, number: int) -> bytes:
    """Country and organization of the issuer, and a name of its own (A17).

    What no name of ours may say is left out: an imported CA's country may be in small letters, its name too long.
    """
    attributes = dict(name_attributes(issuer.subject))
    suffix = f" OCSP {number}"
    named = [
        attributes.get("CN", issuer.name)[: _COMMON_NAME_LIMIT - len(suffix)].rstrip() + suffix,
        issuer.name[: _COMMON_NAME_LIMIT - len(suffix)] + suffix,
    ]
    wanted = {
        "C": attributes.get("C", "").upper(),
        "O": attributes.get("O", ""),
        "CN": next(each for each in named if _is_lawful("CN", each)),
    }
    return build_name({key: value for key, value in wanted.items() if _is_lawful(key, value)})


def _is_lawful(attribute: str, value: str) -> bool:
    try:
        build_name({attribute: value})
    except QuashError:
        return False
    return True


def algorithm_of(issuer: Issuer) -> SignatureAlgorithm:
    return SIGNATURE_ALGORITHMS[issuer.signature_algorithm]
