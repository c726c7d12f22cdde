"""G22, F1: whoever changes the configuration, it is noticed and told: on disk, and when it comes into force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from issuer.issuance.configuration import Watch, changes, parts
from quash.runtime.config import Config, load
from tests.support.initialising import DEMO
from tests.support.issuing import World

HOST = "ca1.example.org"


def watch(world: World, config: Config, now: Config | None = None) -> Watch:
    return Watch(world.pool, config, lambda: now or config, HOST, world.clock)


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    rows = await world.fetch("select action, subject from act order by id")
    return [(row["action"], {key: value for key, value in row["subject"].items() if key != "host"}) for row in rows]


def alarm() -> float | None:
    return REGISTRY.get_sample_value("quash_configuration_changed")


def written(folder: Path, *more: str, profile: str = "") -> Config:
    """The demo's configuration from a folder of its own, with a profile file beside it."""
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "demo.toml").write_text(DEMO.read_text())
    if profile:
        (folder / "profiles" / "dv.toml").write_text(profile)
    return load(folder / "demo.toml", more)


async def test_what_comes_into_force_is_told_once_and_with_its_parts(world: World, tmp_path: Path) -> None:
    """The first time all of it; a start with nothing new tells nothing; then the very profile and CA that changed."""
    config = written(tmp_path)
    assert await watch(world, config).begin()
    assert not await watch(world, config).begin()
    assert not await watch(world, written(tmp_path)).begin()
    ((action, subject),) = await told(world)
    assert action == "configuration.in_force"
    assert {"kinds/dv", "issuers/root", "profiles/tls-dv", "issuance", "company"} <= set(subject["added"])
    shorter = (DEMO.parent / "profiles" / "dv.toml").read_text().replace("days = 199", "days = 90")
    changed = written(tmp_path, "lint.level=notice", "profiles=[]", "testsite.sites=[]", profile=shorter)
    assert await watch(world, changed).begin()
    assert (await told(world))[1:] == [
        (
            "configuration.in_force",
            {
                "changed": ["kinds/dv", "lint", "testsite"],
                "removed": ["profiles/tls-dv", "profiles/tls-dv-day", "profiles/tls-ov"],
            },
        )
    ]


async def test_a_file_that_changes_under_a_running_process_is_an_alarm(world: World, tmp_path: Path) -> None:
    """From the first look on, as long as it lasts; the act comes once for each difference."""
    config = written(tmp_path)
    same = watch(world, config)
    assert not await same.look()
    assert alarm() == 0
    other = written(tmp_path, "issuance.high_profile=[]")
    found = watch(world, config, other)
    for _ in range(2):
        assert await found.look()
        assert alarm() == 1
    assert await told(world) == [("configuration.changed", {"changed": ["issuance"]})]
    assert not await same.look()
    assert alarm() == 0


async def test_a_file_that_nobody_can_read_is_an_alarm_too(world: World, tmp_path: Path) -> None:
    """A change that breaks a rule names the error's code; what the file says is not repeated."""
    config = written(tmp_path)
    file = tmp_path / "demo.toml"
    found = Watch(world.pool, config, lambda: load(file), HOST, world.clock)
    file.write_text(DEMO.read_text() + "\nnonsense = true\n")
    assert await found.look()
    file.write_text("[[[")
    assert await found.look()
    assert await told(world) == [
        ("configuration.changed", {"unreadable": "config.invalid"}),
        ("configuration.changed", {"unreadable": "config.syntax"}),
    ]


def test_parts_are_digests_and_every_section_is_one() -> None:
    """Nothing of what a configuration says stands in the record, and nothing of it is left out."""
    config = load(DEMO)
    found = parts(config)
    assert {len(each) for each in found.values()} == {64}
    sections = set(Config.model_fields) - {"kinds", "issuers", "profiles"}
    assert sections <= set(found)
    assert len(found) == len(sections) + len(config.kinds) + len(config.issuers) + len(config.profiles)
    assert changes(found, found) == {}


async def test_hosts_have_histories_of_their_own(world: World, tmp_path: Path) -> None:
    """Two machines may differ; neither tells the other's configuration as a change."""
    config = written(tmp_path)
    assert await watch(world, config).begin()
    elsewhere = Watch(world.pool, written(tmp_path, "issuer.port=1"), lambda: config, "ca2", world.clock)
    assert await elsewhere.begin()
    assert not await watch(world, config).begin()
