"""The Docker runner against an engine that checks every request: how builds end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.processes import TreeStillAlive
from adapters.sandbox import docker_api, docker_containers
from adapters.sandbox.contract import (
    Network,
    PhaseEnd,
    RunnerUnavailable,
)
from adapters.sandbox.docker import DockerRunner
from settings import Settings
from tests.container_servers import (
    CUT,
    DISK,
    HANG,
    OOM,
    SECRET,
    FakeEngine,
    Listener,
    Play,
    Trees,
    folder_archive,
    phase,
    spec_of,
)
from tests.harness.waiting import eventually
from tests.storage_servers import make_settings


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    async with FakeEngine().listening(socket=tmp_path / "docker.sock") as engine:
        yield engine


def settings_of(engine: FakeEngine, folder: Path, **values: Any) -> Settings:
    network = {"docker_network": "builds", "build_proxy_url": "http://proxy:3128"}
    return make_settings(folder, **{"docker_host": engine.url, **network, **values})


async def test_two_phases_run_and_the_output_comes_back(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays = {
        "run install": Play([(1, b"added 3"), (2, b"warn"), (1, b" packages\n")], piece_bytes=5),
        "run build": Play([(1, b"built\n")]),
    }
    engine.archives["/workspace/source/site/dist"] = folder_archive("dist", {"index.html": b"<h1>", "a/b.js": b"1"})
    listener, trees = Listener(), Trees()
    spec = spec_of(
        tmp_path,
        phase("install", network=Network.EGRESS),
        phase("build", environment={"API_KEY": SECRET}),
    )

    result = await DockerRunner(settings_of(engine, tmp_path)).run(spec, listener, trees)

    assert [(exit.phase, exit.end, exit.exit_code) for exit in result.exits] == [
        ("install", PhaseEnd.EXITED, 0),
        ("build", PhaseEnd.EXITED, 0),
    ]
    assert listener.events == ["started install", "ended install EXITED", "started build", "ended build EXITED"]
    assert listener.text == {False: b"added 3 packages\nbuilt\n", True: b"warn"}
    assert result.output is not None
    assert result.output.parent == spec.source.parent
    assert (result.output / "index.html").read_bytes() == b"<h1>"
    assert (result.output / "a/b.js").read_bytes() == b"1"
    assert not engine.containers
    with tarfile.open(fileobj=io.BytesIO(engine.only.archives[0])) as sent:
        assert {"home", "source", "source/site/index.js"} <= set(sent.getnames())
        assert {member.uid for member in sent} == {1_000}


async def test_the_container_is_confined_and_knows_nothing_of_the_worker(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://worker:password@db")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    trees = Trees()
    spec = spec_of(tmp_path, phase("build", environment={"API_KEY": SECRET}))

    await DockerRunner(settings_of(engine, tmp_path)).run(spec, Listener(), trees)

    body, host = engine.only.body, engine.only.body["HostConfig"]
    assert body["User"] == "1000:1000"
    assert body["Labels"]["switchyard.build"] == "dep_1"
    assert engine.only.name == "switchyard-build-dep_1"
    assert (body["OpenStdin"], body["StdinOnce"], body["Env"]) == (True, True, [])
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["PidsLimit"] == 128
    assert host["Memory"] == host["MemorySwap"] == 512 * 2**20
    assert host["NetworkMode"] == "none"
    assert host["Init"] is True
    assert host["AutoRemove"] is False
    assert [(mount["Type"], mount["Target"], "Source" in mount) for mount in host["Mounts"]] == [
        ("volume", "/workspace", False)
    ]
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {
        "nofile": 65_536,
        "core": 0,
        "fsize": 5_000_000,
    }
    command = engine.only.commands[0]
    assert command["Cmd"] == ["/bin/sh", "-c", "run build"]
    assert command["User"] == "1000:1000"
    assert command["WorkingDir"] == "/workspace/source/site"
    variables = dict(entry.split("=", 1) for entry in command["Env"])
    assert variables["API_KEY"] == SECRET
    assert not {"DATABASE_URL", "HTTP_PROXY", "SECRET_KEYS"} & variables.keys()
    assert not any(SECRET in request for request in engine.requests)
    assert not any(SECRET in argument for argument in trees.commands[0])


async def test_only_phases_with_network_are_connected(engine: FakeEngine, tmp_path: Path) -> None:
    phases = [phase("install", network=Network.EGRESS), phase("build"), phase("test", network=Network.EGRESS)]

    await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, *phases), Listener(), Trees())

    assert engine.networks_during == {"run install": {"builds"}, "run build": set(), "run test": {"builds"}}
    proxies = [
        {entry for entry in command["Env"] if entry.startswith("HTTPS_PROXY=")} for command in engine.only.commands
    ]
    assert proxies == [{"HTTPS_PROXY=http://proxy:3128"}, set(), {"HTTPS_PROXY=http://proxy:3128"}]


async def test_without_a_proxy_there_is_no_network_and_the_log_says_so_once(engine: FakeEngine, tmp_path: Path) -> None:
    listener = Listener()
    phases = [phase("install", network=Network.EGRESS), phase("build", network=Network.EGRESS)]

    settings = settings_of(engine, tmp_path, build_proxy_url=None)
    await DockerRunner(settings).run(spec_of(tmp_path, *phases), listener, Trees())

    assert engine.only.body["HostConfig"]["NetworkMode"] == "none"
    assert listener.text[True].count(b"no network") == 1


async def test_a_failing_phase_is_the_last(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run install"] = Play([(2, b"no such package\n")], end=7)
    listener = Listener()

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("install"), phase("build")), listener, Trees()
    )

    assert [(exit.end, exit.exit_code) for exit in result.exits] == [(PhaseEnd.EXITED, 7)]
    assert result.output is None
    assert listener.events == ["started install", "ended install EXITED"]
    assert not engine.containers
    assert not engine.asked("GET .*/archive")


async def test_a_phase_that_takes_too_long_is_killed(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"working")], end=HANG)
    listener = Listener()

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build", timeout_seconds=0.3), phase("next")), listener, Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.TIMED_OUT]
    assert listener.text[False] == b"working"
    assert engine.asked("POST .*/kill")
    assert not engine.containers


async def test_memory_that_ran_out_is_told_from_a_failure(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play(end=OOM)

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build")), Listener(), Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.OUT_OF_MEMORY]


async def test_a_volume_beyond_its_limit_ends_the_build(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play(end=DISK)

    result = await DockerRunner(settings_of(engine, tmp_path), usage_seconds=0.05).run(
        spec_of(tmp_path, phase("build")), Listener(), Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.DISK_FULL]
    assert result.exits[0].peak_memory_bytes == 4_000_000
    assert not engine.containers


async def test_an_output_beyond_the_limits_leaves_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    engine.archives["/workspace/source/site/dist"] = folder_archive("dist", {"big": bytes(10_000_001)})

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build")), Listener(), Trees()
    )

    assert result.exits[-1].end is PhaseEnd.DISK_FULL
    assert result.output is None
    assert not (tmp_path / "checkout.output").exists()


async def test_a_listener_that_stops_ends_the_build(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"one"), (1, b"too much")], end=HANG, piece_bytes=11)
    listener = Listener(stop_at=b"too much")

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build"), phase("next")), listener, Trees()
    )

    assert [exit.end for exit in result.exits] == [PhaseEnd.STOPPED]
    assert not engine.containers


async def test_cancelling_returns_only_once_the_container_is_removed(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"x")], end=HANG)
    listener = Listener()
    running = asyncio.create_task(
        DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), listener, Trees())
    )
    await eventually(listener.heard.is_set, 10)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not engine.containers
    assert engine.asked(r"DELETE .*\?force=1&v=1")


async def test_a_removal_that_fails_is_said(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_containers, "REMOVE_SECONDS", 0.2)
    engine.faults["^DELETE"] = [500] * 100
    trees = Trees()

    with pytest.raises(TreeStillAlive):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), trees)

    assert trees.has_strays


async def test_a_cancelled_build_that_cannot_be_removed_stays_cancelled_and_carries_the_news(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_containers, "REMOVE_SECONDS", 0.2)
    engine.plays["run build"] = Play([(1, b"x")], end=HANG)
    engine.faults["^DELETE"] = [500] * 100
    listener, trees = Listener(), Trees()
    running = asyncio.create_task(
        DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), listener, trees)
    )
    await eventually(listener.heard.is_set, 10)

    running.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running

    assert isinstance(caught.value.__cause__, TreeStillAlive)
    assert trees.has_strays


async def test_the_end_of_the_holder_ends_the_build(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"x")], end=HANG)
    listener, trees = Listener(), Trees()
    running = asyncio.create_task(
        DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), listener, trees)
    )
    await eventually(listener.heard.is_set, 10)
    assert engine.only.is_held

    await trees.trees[0].kill()  # as the supervisor does when the lease is lost

    with pytest.raises(RunnerUnavailable, match="ended by itself"):
        await running
    assert not engine.containers


WORKER = """
import asyncio, sys, time
from contextlib import asynccontextmanager
from pathlib import Path
from adapters.processes import spawn
from adapters.sandbox.docker import DockerRunner
from tests.storage_servers import make_settings
from tests.container_servers import Listener, phase, spec_of

@asynccontextmanager
async def leased(argv, *, env, cwd, **options):
    async with spawn(argv, env=env, cwd=cwd, deadline=time.monotonic() + float(sys.argv[3]), **options) as tree:
        yield tree

folder = Path(sys.argv[1])
settings = make_settings(folder, docker_host=sys.argv[2])
asyncio.run(DockerRunner(settings).run(spec_of(folder, phase("build", timeout_seconds=60)), Listener(), leased))
"""


@pytest.mark.parametrize(("number", "lease_seconds"), [(signal.SIGKILL, 60.0), (signal.SIGSTOP, 3.0)])
async def test_a_worker_that_is_killed_or_frozen_takes_its_container_along(
    engine: FakeEngine, tmp_path: Path, number: signal.Signals, lease_seconds: float
) -> None:
    engine.plays["run build"] = Play([(1, b"x")], end=HANG)
    root = str(Path(__file__).parents[2])
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, str(tmp_path), engine.url, str(lease_seconds)),
        env={**os.environ, "PYTHONPATH": root},
        cwd=root,
    )
    try:
        await eventually(lambda: engine.asked("POST .*/exec/.*/start"), 20)
        container = engine.only
        assert container.is_held
        assert container.running

        worker.send_signal(number)

        await eventually(lambda: not container.running, 15, what="the container ends")
        assert not engine.asked("DELETE")  # nobody but the holder
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


async def test_a_name_that_is_taken_is_an_earlier_attempts(engine: FakeEngine, tmp_path: Path) -> None:
    runner = DockerRunner(settings_of(engine, tmp_path))
    await runner.run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    earlier = engine.removed.pop()
    engine.containers[earlier.id] = earlier

    result = await runner.run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert result.exits[-1].is_success
    assert earlier in engine.removed
    assert not engine.containers


async def test_a_container_whose_making_was_not_answered_is_removed(engine: FakeEngine, tmp_path: Path) -> None:
    engine.faults["PUT .*/archive"] = [CUT]

    with pytest.raises(RunnerUnavailable):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert not engine.containers
    assert engine.only.started is False


@pytest.mark.parametrize("fault", [500, CUT])
@pytest.mark.parametrize(
    "call", ["/containers/create", "/start$", "PUT .*/archive", "/attach", "/containers/.*/exec$", "/exec/.*/start"]
)
async def test_an_engine_that_fails_at_any_step_leaves_nothing(
    engine: FakeEngine, tmp_path: Path, call: str, fault: int | str
) -> None:
    engine.faults[call] = [fault]

    with pytest.raises(RunnerUnavailable):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert not engine.containers


async def test_output_that_is_cut_off_is_no_success(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"half")], end=CUT)

    with pytest.raises(RunnerUnavailable):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), Trees())

    assert not engine.containers


async def test_output_that_ends_within_a_frame_is_no_success(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["run build"] = Play([(1, b"half of this")], lost_bytes=3)

    with pytest.raises(RunnerUnavailable, match="was cut"):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), Trees())


async def test_an_engine_that_hangs_is_given_up(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_api, "CALL_SECONDS", 0.2)
    engine.faults["/containers/create"] = [HANG]

    with pytest.raises(RunnerUnavailable, match="does not answer"):
        await DockerRunner(settings_of(engine, tmp_path)).run(spec_of(tmp_path, phase("build")), Listener(), Trees())


async def test_a_missing_image_is_not_fetched_but_named(engine: FakeEngine, tmp_path: Path) -> None:
    engine.images.clear()
    runner = DockerRunner(settings_of(engine, tmp_path))

    with pytest.raises(RunnerUnavailable, match="docker pull node:22-bookworm"):
        await runner.run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    with pytest.raises(RunnerUnavailable, match="docker pull node:22-bookworm"):
        await runner.probe()
    assert not engine.asked("/images/create")


async def test_no_engine_is_said(tmp_path: Path) -> None:
    runner = DockerRunner(make_settings(tmp_path, docker_host=f"unix://{tmp_path}/nobody.sock"))

    with pytest.raises(RunnerUnavailable, match="cannot be reached"):
        await runner.probe()
    with pytest.raises(RunnerUnavailable, match="cannot be reached"):
        await runner.run(spec_of(tmp_path, phase("build")), Listener(), Trees())


@pytest.mark.parametrize("url", ["http://docker", "unix://host/path", "tcp://host", "tcp://user@host:1"])
async def test_an_address_of_another_kind_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RunnerUnavailable, match="DOCKER_HOST"):
        await DockerRunner(make_settings(tmp_path, docker_host=url)).probe()


async def test_a_probe_tries_a_container_and_leaves_none(tmp_path: Path) -> None:
    async with FakeEngine().listening() as engine:  # over TCP
        found = await DockerRunner(settings_of(engine, tmp_path)).probe()

        assert "29.0.1 rootless" in found.detail
        assert "network builds" in found.detail
        assert "touch /workspace/home/probe" in engine.only.commands[0]["Cmd"][-1]
        assert not engine.containers


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"networks": {}}, "docker network create --internal builds"),
        ({"networks": {"builds": False}}, "docker network rm builds"),
        ({"version": {"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}}, "Engine 25"),
        ({"version": {"Version": "99", "ApiVersion": "1.99", "MinAPIVersion": "1.60"}}, "1.44"),
        ({"info": {"MemoryLimit": False}}, "cannot limit memory"),
        ({"info": {"PidsLimit": False}}, "cannot limit processes"),
    ],
)
async def test_a_probe_says_what_is_missing(
    engine: FakeEngine, tmp_path: Path, change: dict[str, Any], advice: str
) -> None:
    vars(engine).update(change)

    with pytest.raises(RunnerUnavailable, match=advice):
        await DockerRunner(settings_of(engine, tmp_path)).probe()
    assert not engine.containers


async def test_a_probe_whose_command_fails_quotes_it(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plays["touch /workspace/home/probe && ! touch /probe 2>/dev/null"] = Play([(2, b"read-only")], end=1)

    with pytest.raises(RunnerUnavailable, match="read-only"):
        await DockerRunner(settings_of(engine, tmp_path)).probe()
    assert not engine.containers


async def test_reaping_removes_and_nothing_to_reap_is_fine(engine: FakeEngine, tmp_path: Path) -> None:
    runner = DockerRunner(settings_of(engine, tmp_path))
    await runner.run(spec_of(tmp_path, phase("build")), Listener(), Trees())
    lost = engine.removed.pop()
    lost.running = True
    engine.containers[lost.id] = lost

    await runner.reap("dep_1")
    await runner.reap("dep_1")

    assert engine.removed == [lost]
    assert not lost.running


async def test_the_cache_goes_in_and_comes_back(engine: FakeEngine, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "old").write_text("old package")
    engine.archives["/workspace/cache"] = folder_archive("cache", {"npm/new": b"new package"})

    await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build"), cache=cache), Listener(), Trees()
    )

    with tarfile.open(fileobj=io.BytesIO(engine.only.archives[1])) as sent:
        assert "cache/old" in sent.getnames()
    assert "npm_config_cache=/workspace/cache/npm" in engine.only.commands[0]["Env"]
    assert (cache / "npm/new").read_bytes() == b"new package"
    assert sorted(os.listdir(tmp_path)) == ["cache", "checkout", "docker.sock"]


async def test_a_cache_that_does_not_arrive_keeps_the_old_one(engine: FakeEngine, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "old").write_text("old package")
    engine.archives["/workspace/cache"] = folder_archive("cache", {"new": bytes(3_000)})[:2_000]

    result = await DockerRunner(settings_of(engine, tmp_path)).run(
        spec_of(tmp_path, phase("build"), cache=cache), Listener(), Trees()
    )

    assert result.exits[-1].is_success
    assert (cache / "old").read_text() == "old package"
    assert sorted(os.listdir(tmp_path)) == ["cache", "checkout", "docker.sock"]


@pytest.mark.parametrize("path", ["/etc", "../..", "a/../../.."])
async def test_paths_outside_the_source_are_refused_before_anything_is_made(
    engine: FakeEngine, tmp_path: Path, path: str
) -> None:
    runner = DockerRunner(settings_of(engine, tmp_path))

    for values in ({"working_directory": path}, {"output_directory": path}):
        with pytest.raises(ValueError, match="inside the source"):
            await runner.run(spec_of(tmp_path, phase("build"), **values), Listener(), Trees())

    assert not engine.requests


def test_the_holder_starts_quickly_and_alone(tmp_path: Path) -> None:
    from adapters.sandbox import holder

    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-I", "-S", holder.__file__, f"unix:{tmp_path}/nobody.sock", "/v1.44/x"],
        capture_output=True, env={}, timeout=10,
    )  # fmt: skip

    assert ended.returncode == 1
    assert b"cannot be reached" in ended.stderr
    assert time.monotonic() - begun < 5
