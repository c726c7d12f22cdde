"""Which incidents a certificate is part of, and what ACME clients should be told of its renewal then (C21)."""

from __future__ import annotations

from dataclasses import dataclass

from issuer.revocation.cases import Standing, find_case, standing
from issuer.revocation.find import Found
from quash.pki.rules import DAY
from quash.store import cases, jobs, mass_jobs
from quash.store.database import Connection
from quash.store.jobs import Job
from quash.store.mass_jobs import MassJob

_WINDOW = DAY  # seconds; any length will do, it lies in the past


@dataclass(frozen=True, slots=True)
class Incidents:
    """`cases` that have it and were not closed, `mass` revocations that were started with it, `jobs` for its key.

    `renew`: (start, end) of the window in which it should have been renewed, Unix seconds, wholly past: now (RFC 9773,
    4.2); None: it is part of nothing.
    """

    cases: tuple[Standing, ...]
    mass: tuple[MassJob, ...]
    jobs: tuple[Job, ...]
    renew: tuple[int, int] | None


async def incidents_of(conn: Connection, found: Found, now: int) -> Incidents:
    """A mass revocation counts from its start on: until then it is a plan, which may be wrong."""
    certificate = found.certificate
    numbers = await cases.holding(conn, certificate.issuer_id, certificate.serial)
    held = [standing(await find_case(conn, number), now) for number in numbers]
    of_cases = [each for each in held if each.state != "closed"]
    mass = await mass_jobs.holding(conn, certificate.issuer_id, certificate.serial)
    key = certificate.spki_sha256
    of_key = [] if key is None else await jobs.of_key(conn, key)
    began = [each.case.received_at for each in of_cases] + [each.created_at for each in mass]
    began += [each.created_at for each in of_key]
    renew = (min(began) - _WINDOW, min(*began, now - 1)) if began else None
    return Incidents(tuple(of_cases), tuple(mass), tuple(of_key), renew)
