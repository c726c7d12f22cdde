"""What an issuer's own certificate says of what may stand below it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from issuer.signer import oids
from issuer.signer.extension_values import read_octets, read_path_length, read_policies, read_purposes
from issuer.signer.tbs import read_tbs_certificate, tbs_of
from quash.errors import Kind, QuashError
from quash.pki.algorithms import SIGNATURE_ALGORITHMS, SignatureAlgorithm
from quash.pki.certid import key_identifier
from quash.pki.name_constraints import NameConstraints, read_name_constraints
from quash.store.issuers import Issuer


@dataclass(frozen=True, slots=True)
class Authority:
    """What the signer knows of an issuer before it sees a request, all of it from the issuer's own certificate.

    `key_id`: its SKI; `policies` and `purposes`: dotted, empty where it limits neither; `path_length`: CAs that may
    stand below it, None: any number.
    """

    issuer: Issuer
    algorithm: SignatureAlgorithm
    key_id: bytes
    not_after: int
    policies: frozenset[str] = frozenset()
    purposes: frozenset[str] = frozenset()
    path_length: int | None = None
    constraints: NameConstraints | None = None

    def carries(self, policies: Iterable[str]) -> bool:
        """Whether certificates below may be of these policies (D15)."""
        return not self.policies or oids.ANY_POLICY in self.policies or self.policies.issuperset(policies)


@lru_cache(maxsize=64)
def authority_of(issuer: Issuer, certificate: bytes) -> Authority:
    """Reads an issuer's certificate (DER). Raises `signer.issuer_certificate` when it is of another name or key."""
    tbs = read_tbs_certificate(tbs_of(certificate))
    if issuer.signature_algorithm == "ed25519" and issuer.kind != "private":
        raise QuashError(
            "key.algorithm_not_supported",
            f"{issuer.name} is of no private PKI: its key cannot be Ed25519",
            Kind.REFUSED,
        )
    if tbs.subject != issuer.subject or tbs.spki != issuer.spki:
        raise QuashError(
            "signer.issuer_certificate", f"the certificate of {issuer.name} has another name or key", Kind.INTERNAL
        )
    ski = tbs.extensions.get(oids.SUBJECT_KEY_IDENTIFIER)
    policies = tbs.extensions.get(oids.CERTIFICATE_POLICIES)
    purposes = tbs.extensions.get(oids.EXTENDED_KEY_USAGE)
    basic = tbs.extensions.get(oids.BASIC_CONSTRAINTS)
    # An imported CA's are as they are; it signs nothing that they would bear on.
    constraints = tbs.extensions.get(oids.NAME_CONSTRAINTS) if not issuer.taken_over else None
    return Authority(
        issuer=issuer,
        algorithm=SIGNATURE_ALGORITHMS[issuer.signature_algorithm],
        # An imported CA may lack the SKI: RFC 5280 4.2.1.2 method 1 is what its old certificates point to.
        key_id=read_octets(ski.value) if ski else key_identifier(tbs.spki),
        not_after=tbs.not_after,
        policies=frozenset(read_policies(policies.value) if policies else ()),
        purposes=frozenset(read_purposes(purposes.value) if purposes else ()),
        path_length=read_path_length(basic.value) if basic else None,
        constraints=read_name_constraints(constraints.value) if constraints else None,
    )
