"""What Locust loads: users, load shapes, and goals that decide the exit code of a headless run.

    locust -f loadtest/traffic/locustfile.py --headless --population FILE --load spike --users 20 --run-time 60

Exit status 0: every goal met. 1: a goal missed, or one wrong answer, which ends the run at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.runners import WorkerRunner

from loadtest.traffic.truth import Population, Truth, WrongAnswerError
from loadtest.traffic.users import CdnFetcher, Operator, RelyingParty, Stranger

__all__ = ["CdnFetcher", "Load", "Operator", "RelyingParty"]

# Parts of the run time, and how many times `--users` there are in each. A CDN that loses its cache passes on
# everything at once: where it answered 15 of 16 requests itself, 16 times as many arrive.
SHAPES = {
    "steady": ((1.0, 1),),
    "spike": ((0.3, 1), (0.3, 4), (0.4, 1)),
    "cdn-drop": ((0.4, 1), (0.3, 16), (0.3, 1)),
    "soak": ((1.0, 1),),
}
SECONDS = {"steady": 60, "spike": 60, "cdn-drop": 60, "soak": 4 * 3600}  # without --run-time
# What a run must have verified, or it has shown nothing.
SHOWN = (
    *("OCSP answers verified", "unknown answered as such", "garbage answered as such"),
    *("CRLs verified", "CRLs not modified", "revocations seen"),
)


class Load(LoadTestShape):
    """The shape that --load names; users come and go at once."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        at = self.get_run_time() / (options.run_time or SECONDS[options.load])
        for part, times in SHAPES[options.load]:
            if at < part:
                users = times * (options.num_users or 20)
                return users, users
            at -= part
        return None


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    parser.add_argument("--population", required=True, help="JSON of truth.Population; kept up to date")
    parser.add_argument("--load", choices=list(SHAPES), default="steady")
    parser.add_argument("--verify", type=float, default=0.1, help="share of OCSP answers that are verified")
    parser.add_argument("--goal-p99", type=float, default=1000, help="ms of OCSP requests, at most")
    parser.add_argument("--goal-rate", type=float, default=0, help="OCSP answers a second, at least")


@events.init.add_listener
def _begin(environment: Any, **_: Any) -> None:
    options = environment.parsed_options
    truth = Truth(Population.load(Path(options.population)))
    Stranger.truth = Operator.truth = truth
    Stranger.share = options.verify
    of = truth.population
    RelyingParty.host, CdnFetcher.host, Operator.host = of.ocsp, of.crl, of.admin


@events.request.add_listener
def _stop_at_a_wrong_answer(exception: object, **_: Any) -> None:
    if isinstance(exception, WrongAnswerError):
        WRONG.append(str(exception))
        RUNNING[0].quit()


WRONG: list[str] = []
RUNNING: list[Any] = []


@events.test_start.add_listener
def _start(environment: Any, **_: Any) -> None:
    RUNNING[:] = [environment.runner]


@events.quitting.add_listener
def _judge(environment: Any, **_: Any) -> None:
    """The goals, each printed when it is missed."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options, tally = environment.parsed_options, Stranger.truth.tally
    Stranger.truth.known().save(Path(options.population))
    asked = [environment.stats.get(f"OCSP {method}", method) for method in ("GET", "POST")]
    slowest = max(each.get_response_time_percentile(0.99) or 0 for each in asked)
    rate = sum(each.total_rps for each in asked)
    missed = [f"wrong answer: {each}" for each in WRONG]
    errors = environment.stats.errors.values()
    missed += [f"{each.occurrences} failures of {each.name}: {each.error}" for each in errors]
    missed += [f"no {what}" for what in SHOWN if not tally[what]]
    if slowest > options.goal_p99:
        missed.append(f"p99 of OCSP requests {slowest:.0f} ms, goal {options.goal_p99:.0f} ms")
    if rate < options.goal_rate:
        missed.append(f"{rate:.0f} OCSP answers a second, goal {options.goal_rate:.0f}")
    told = ", ".join(f"{what}: {count}" for what, count in sorted(tally.items()))
    sys.stdout.write(f"{rate:.0f} OCSP answers a second, p99 {slowest:.0f} ms; {told}\n")
    sys.stdout.write("".join(f"goal missed: {each}\n" for each in missed) or "every goal met\n")
    environment.process_exit_code = 1 if missed else 0
