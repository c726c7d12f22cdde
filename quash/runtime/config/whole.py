"""A whole configuration: its sections, and what must hold between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from quash.runtime import profiles
from quash.runtime.config.crl import Crl, CrlOrigin, Publish
from quash.runtime.config.hierarchy import Issuer, Profile, check_below, check_ca, check_offers, check_signer
from quash.runtime.config.issuing import Checks, Ct, CtLog, Issuance, IssuerApi, Lint, Names, SelfAudit
from quash.runtime.config.model import Model
from quash.runtime.config.ocsp import Presign, Responder
from quash.runtime.config.operating import Audit, Drills, Metrics, Sockets, TestSites
from quash.runtime.config.revoking import Admin, Intake, Notices
from quash.runtime.config.storage import Database, Keys
from quash.runtime.profiles import ProfileKind


class Config(Model):
    """Everything a deployment sets."""

    database: Database = Database()
    responder: Responder = Responder()
    crl_origin: CrlOrigin = CrlOrigin()
    issuer: IssuerApi = IssuerApi()
    admin: Admin = Admin()
    intake: Intake = Intake()
    notices: Notices = Notices()
    metrics: Metrics = Metrics()
    issuance: Issuance = Issuance()
    names: Names = Names()
    checks: Checks = Checks()
    lint: Lint = Lint()
    self_audit: SelfAudit = SelfAudit()
    ct: Ct = Ct()
    ct_log: CtLog = CtLog()
    presign: Presign = Presign()
    crl: Crl = Crl()
    publish: Publish = Publish()
    audit: Audit = Audit()
    keys: Keys = Keys()
    sockets: Sockets = Sockets()
    testsite: TestSites = TestSites()
    drills: Drills = Drills()
    company: str = ""
    """Stands in the commonName of every CA (G35); empty: the first word of its O."""
    kinds: Mapping[str, ProfileKind] = Field(default_factory=profiles.shipped)
    """The files of `config/profiles`, and of a folder `profiles` beside this file, which go before."""
    issuers: tuple[Issuer, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @model_validator(mode="after")
    def _hierarchy(self) -> Self:
        """Each CA within its profile, and below a parent that may have it."""
        by_name = {issuer.name: issuer for issuer in self.issuers}
        if len(by_name) != len(self.issuers):
            raise ValueError("issuers: a name stands twice")
        for issuer in self.issuers:
            check_ca(issuer, self.kinds.get(issuer.profile_name))
            company = self.company or issuer.subject["O"].split()[0]
            if company.lower() not in issuer.subject["CN"].lower():
                raise ValueError(f"issuer {issuer.name}: {company} stands in the CN of each CA (G35)")
            check_signer(issuer, self.kinds["ocsp-signer"])
            if issuer.parent is not None:
                check_below(issuer, by_name)
        return self

    @model_validator(mode="after")
    def _relations(self) -> Self:
        names = [issuer.name for issuer in self.issuers]
        if not self.ct.required and self.issuance.require_validation:
            raise ValueError("ct.required: only where issuance.require_validation is false may logs be missing (E6)")
        if self.ct_log.enabled and self.issuance.require_validation and not self.ct_log.demonstration:
            raise ValueError("ct_log.enabled: these logs keep no promise; say ct_log.demonstration if this is one (E6)")
        if self.lint.exempt and self.issuance.require_validation:
            raise ValueError("lint.exempt: only where issuance.require_validation is false, in a demonstration")
        for profile in self.profiles:
            profile.check(self.kinds.get(profile.kind))
            if profile.issuer not in names:
                raise ValueError(f"profile {profile.name}: issuer {profile.issuer} is not configured")
            check_offers(next(each for each in self.issuers if each.name == profile.issuer), self.kinds[profile.kind])
        return self

    @model_validator(mode="after")
    def _test_sites(self) -> Self:
        """Each root's sites are ordered from a CA below it."""
        parents, below = {each.name: each.parent for each in self.issuers}, {each.name: each for each in self.profiles}
        for site in self.testsite.sites:
            for name in filter(None, (site.profile, site.expired_profile)):
                above = below[name].issuer if name in below else None
                while above is not None and above != site.root:
                    above = parents.get(above)
                if above is None:
                    raise ValueError(f"testsite of {site.root}: {name} is no profile of a CA below it (F13)")
        return self

    @property
    def nonce_signers(self) -> frozenset[str]:
        """The names of the issuers whose nonces are signed."""
        own = {issuer.name: issuer.nonce for issuer in self.issuers}
        return frozenset(name for name, nonce in {**own, **self.responder.nonce}.items() if nonce == "sign")

    @property
    def ocsp_base(self) -> str:
        """The URL that certificates carry before `/<issuer>`."""
        return self.responder.base_url.rstrip("/") or f"http://{self.responder.host}:{self.responder.port}"

    @property
    def crl_base(self) -> str:
        """The URL that CRLDPs and caIssuers carry before the path."""
        return self.crl_origin.base_url.rstrip("/") or f"http://{self.crl_origin.host}:{self.crl_origin.port}"

    @property
    def visible_at(self) -> tuple[str, ...]:
        """The responders that are asked, as a stranger would, whether an answer is out."""
        return self.issuance.visible_at or (self.ocsp_base,)
