"""The admin API's route for the incidents that a certificate is part of (C21)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from issuer.api import answer, require, timestamp
from issuer.revocation.find import Found, Target, find_one
from issuer.revocation.incidents import Incidents, incidents_of
from issuer.revocation.routes import EVERYONE, Routes
from quash.pki.reasons import Reason
from quash.pki.serials import format_serial, parse_serial
from quash.runtime.clock import Clock
from quash.store.database import Pool, acquire
from quash.store.jobs import Job
from quash.store.mass_jobs import MassJob


class IncidentApi(Routes):
    """The handler. `explanation_url`: as the configuration names it, `{case}` in it is replaced."""

    def __init__(self, pool: Pool, clock: Clock, explanation_url: str) -> None:
        super().__init__(pool, clock)
        self._explanation_url = explanation_url

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/certificates/{issuer}/{serial}/incidents", self.get)

    async def get(self, request: web.Request) -> web.Response:
        """The cases and mass revocations that a certificate is part of; `renewal_info` is what ARI says of it then."""
        require(request, *EVERYONE)
        target = Target(request.match_info["issuer"], parse_serial(request.match_info["serial"]))
        async with acquire(self._pool) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
            found = await find_one(conn, target)
            incidents = await incidents_of(conn, found, self._now)
        return answer(self._shown(found, incidents))

    def _shown(self, found: Found, incidents: Incidents) -> dict[str, Any]:
        return {
            "issuer": found.issuer.name,
            "serial": format_serial(found.certificate.serial),
            "cases": [
                {
                    "id": each.case.id,
                    "trigger": each.case.trigger,
                    "rule": each.trigger.rule,
                    "state": each.state,
                    "received_at": timestamp(each.case.received_at),
                    "publish_by": timestamp(each.publish_by),
                }
                for each in incidents.cases
            ],
            "mass_revocations": [_work(each) for each in incidents.mass],
            "jobs": [_work(each) for each in incidents.jobs],
            "renewal_info": self._renewal_info(incidents),
        }

    def _renewal_info(self, incidents: Incidents) -> dict[str, Any] | None:
        """As RFC 9773 writes it; null: nothing says that it should be renewed early."""
        if incidents.renew is None:
            return None
        start, end = map(timestamp, incidents.renew)
        info: dict[str, Any] = {"suggestedWindow": {"start": start, "end": end}}
        if self._explanation_url and incidents.cases:
            info["explanationURL"] = self._explanation_url.replace("{case}", str(incidents.cases[0].case.id))
        return info


def _work(job: MassJob | Job) -> dict[str, Any]:
    return {"id": job.id, "state": job.state, "reason": Reason(job.reason).name}
