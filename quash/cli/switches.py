"""Emergency switches of OCSP signers as `quash job` shows them, under the names `switch-NUMBER`."""

from __future__ import annotations

from typing import Any, Final

from quash.cli.client import Api
from quash.cli.common import print_json
from quash.errors import QuashError

PATH: Final = "/v1/signers/switches"
_PREFIX: Final = "switch-"
_MEANS: Final = {
    "ordered": "the presigner makes a new key",
    "requested": "the CA signer decides on the new signer",
    "refused": "the CA signer refused the new signer; the presigner asks again within an hour",
    "signing": "every answer is signed anew",
    "done": "every answer is by the new signer",
}


def is_switch(job: str) -> bool:
    return job.startswith(_PREFIX)


def path(job: str) -> str:
    """Of its job in the admin API; raises `signer.unknown_switch`."""
    number = job.removeprefix(_PREFIX)
    if not (number.isascii() and number.isdigit()):
        raise QuashError("signer.unknown_switch", f"{job!r} is no job: quash job list shows them")
    return f"{PATH}/{number}"


def line(switch: dict[str, Any]) -> str:
    """One line of a list."""
    progress = f"{switch['state']:10} {switch['done']} of {switch['buckets']} buckets"
    return f"{switch['id']:>10} {progress}, new signer of {switch['issuer']}, {switch['created_at']}"


def tell(api: Api, job: str, *, as_json: bool) -> None:
    """Prints how far one is."""
    switch = api.get(path(job))
    if as_json:
        print_json(switch)
        return
    print(line(switch).strip())
    code = "" if switch["code"] is None else f" ({switch['code']})"
    print(f"  {_MEANS[switch['state']]}{code}")
    if switch["seconds_left"] is not None:
        print(f"  {duration(switch['seconds_left'])} left")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as people write them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
