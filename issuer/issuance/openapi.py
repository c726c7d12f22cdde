"""What the issuing API's OpenAPI document says of its bodies and queries."""

from __future__ import annotations

from typing import Final

from issuer.issuance import api, validation_api
from issuer.openapi import Api
from quash.store.operators import RESELLER

API: Final = Api(
    title="Quash issuing API",
    readers=("viewer", "operator", "officer", "auditor", RESELLER),
    bodies={
        "/v1/orders": api.OrderRequest,
        "/v1/orders/{id}/decision": api.Decision,
        "/v1/validations": validation_api.ValidationRecord,
        "/v1/validations/withdrawals": validation_api.ValidatedIdentifier,
    },
    queries={"/v1/orders": api.OrderQuery, "/v1/validations": validation_api.Applicant},
    path_parts={"id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}},
)
