"""What the admin API's OpenAPI document says of its bodies and queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

from issuer import openapi
from issuer.revocation import (
    api,
    case_api,
    case_certificates_api,
    case_papers_api,
    exemption_api,
    key_api,
    mass_api,
    officer_api,
    search_api,
    signers,
)
from issuer.revocation.routes import EVERYONE

# What each POST takes; None: nothing.
BODIES: Final[Mapping[str, type[BaseModel] | None]] = {
    "/v1/revocations": api.RevocationBody,
    "/v1/certificates/lookup": api.CertificateBody,
    "/v1/certificates/statements": api.StatementsBody,
    "/v1/crls/builds": api.BuildBody,
    "/v1/crls/replacements": api.ReplacementBody,
    "/v1/crls/disclosures": api.DisclosureBody,
    "/v1/signers/switches": signers.SwitchBody,
    "/v1/kill-switch": officer_api.KillSwitchBody,
    "/v1/operators": officer_api.OperatorBody,
    "/v1/operators/{name}/disable": None,
    "/v1/proposals/{id}/approval": officer_api.ApprovalBody,
    "/v1/blocked-keys": key_api.BlockBody,
    "/v1/blocked-keys/imports": key_api.ImportBody,
    "/v1/blocked-keys/{spki_sha256}/notes": key_api.NoteBody,
    "/v1/key-compromises/challenges": None,
    "/v1/key-compromises": key_api.CompromiseBody,
    "/v1/cases": case_api.CaseBody,
    "/v1/cases/{id}/certificates": case_certificates_api.CertificatesBody,
    "/v1/cases/{id}/notes": case_api.NoteBody,
    "/v1/cases/{id}/evidence": case_api.EvidenceBody,
    "/v1/cases/{id}/preliminary-report": case_api.NoteBody,
    "/v1/cases/{id}/pick-up": None,
    "/v1/cases/{id}/judgement": case_api.JudgementBody,
    "/v1/cases/{id}/closure": case_api.NoteBody,
    "/v1/cases/{id}/reopening": case_api.NoteBody,
    "/v1/cases/{id}/notices": case_papers_api.NoticeBody,
    "/v1/cases/{id}/revocation": None,
    "/v1/exemptions": exemption_api.ExemptionBody,
    "/v1/exemptions/{id}/end": exemption_api.EndBody,
    "/v1/mass-revocations": mass_api.MassBody,
    "/v1/mass-revocations/{id}/pace": mass_api.PaceBody,
    "/v1/mass-revocations/{id}/certificates": mass_api.PartBody,
    "/v1/mass-revocations/{id}/gather": None,
    "/v1/mass-revocations/{id}/start": None,
    "/v1/mass-revocations/{id}/pause": None,
    "/v1/mass-revocations/{id}/resume": None,
    "/v1/mass-revocations/{id}/abort": None,
}
# What the query of a GET may say.
QUERIES: Final[Mapping[str, type[BaseModel]]] = {
    "/v1/certificates": search_api.CertificateQuery,
    "/v1/revocations/{act_id}": search_api.RevocationQuery,
    "/v1/acts": search_api.ActQuery,
    "/v1/jobs": search_api.PageQuery,
    "/v1/signers/switches": search_api.PageQuery,
    "/v1/cases": search_api.PageQuery,
    "/v1/cases/{id}/certificates": search_api.MemberQuery,
    "/v1/blocked-keys": search_api.HashPageQuery,
    "/v1/mass-revocations/{id}/certificates": search_api.SetQuery,
    "/v1/mass-revocations": search_api.PageQuery,
    "/v1/exemptions": search_api.PageQuery,
}
# Parts of paths that are not any text.
_PATH_PARTS: Final[Mapping[str, dict[str, Any]]] = {
    "id": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "act_id": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "spki_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
# Answers and bodies that are files.
_FILES: Final = {("get", "/v1/cases/{id}/files/{sha256}"), ("put", "/v1/cases/{id}/files/{name}")}
API: Final = openapi.Api("Quash admin API", EVERYONE, BODIES, QUERIES, _PATH_PARTS, _FILES, matched="/v1/cases/")


def add_route(app: web.Application) -> None:
    """Serves the document of all routes that were added before, and of itself."""
    openapi.add_route(app, API)


def document(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    return openapi.document(app, API)
