"""The README's tour, run exactly as it is printed, against `switchyard run` as a newcomer starts it."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from adapters.embedded import children
from tests.harness.processes import CHECKOUT, CLI, Program, child_environment
from tests.harness.waiting import eventually

PRACTICE_PORT = 8900
PRODUCTS = 36
START_SECONDS = 60
TOUR_SECONDS = 150

pytestmark = pytest.mark.timeout(START_SECONDS + TOUR_SECONDS + 20)

# The blocks of the tour by their place.
_FUNCTIONS, SIGN_IN, _CRAWL, WATCH, REPEAT, STOP, _DOWNLOAD, GO_ON, DEPLOY, PREVIEW, ROLL_BACK = range(11)
CAN_BUILD = bool(shutil.which("bwrap") and shutil.which("git"))
needs_sandbox = pytest.mark.skipif(
    not CAN_BUILD,
    reason="THE DEPLOYMENTS OF THE TOUR ARE NOT TESTED: bubblewrap or git is not installed",
)


def tour() -> list[str]:
    """The commands of the section, block by block."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Toured:
    """What each block of the tour printed, and where it ran."""

    said: list[str]
    folder: Path
    greeting: str

    def answer(self, block: int, line: int = -1) -> Any:
        """The data of an answer, by its place among the lines that are answers."""
        answers = [text for text in self.said[block].splitlines() if text.startswith("{")]
        return json.loads(answers[line])["data"]

    def events(self, block: int) -> list[Any]:
        """The data of each event of the streams in a block."""
        return [json.loads(line[6:])["data"] for line in self.said[block].splitlines() if line.startswith("data: {")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def toured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toured]:
    """The tour, after everything was started by the command that `make run` uses."""
    if not children.port_is_free("127.0.0.1", PRACTICE_PORT):
        pytest.skip(f"port {PRACTICE_PORT} is in use, and the tour names it")
    folder = tmp_path_factory.mktemp("tour")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "run.log"
    arguments = (CLI, "run", "--port", str(port), "--data", str(folder / "data"))
    program = Program(arguments, environment=child_environment({}), log=log)
    try:
        await eventually(lambda: b"Ctrl-C stops" in log.read_bytes(), START_SECONDS, what=program.log_tail())
        greeting = log.read_text(encoding="utf-8")
        yield Toured(await take_tour(f"http://localhost:{port}/graphql", folder), folder, greeting)
    finally:
        code = await program.stop()
    assert code == 0


async def take_tour(api_url: str, folder: Path) -> list[str]:
    """Run the blocks in one shell, as somebody who pastes them does; what each printed."""
    blocks = tour() if CAN_BUILD else tour()[:DEPLOY]
    script = "\n".join(f"echo '== {number}'\n{block}" for number, block in enumerate(blocks))
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "API": api_url},
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"errors"' not in done.stdout, done.stdout
    said = re.split(r"^== \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(said) == len(blocks)
    return said


async def test_signing_up_and_crawling_do_what_they_say(toured: Toured) -> None:
    me = toured.answer(SIGN_IN)["me"]
    assert (me["username"], me["role"]) == ("ada", "USER")

    numbers = [int(found) for found in re.findall(r'"sequence":(\d+)', toured.said[WATCH])]
    assert numbers == list(range(1, len(numbers) + 1)), "the log has a gap or a repetition"
    assert '"complete":true' in toured.said[WATCH]
    finished = toured.answer(WATCH)["jobRun"]
    assert (finished["status"], finished["closeReason"], finished["itemsScraped"]) == (
        "SUCCEEDED",
        "FINISHED",
        PRODUCTS,
    )

    schedule = toured.answer(REPEAT)["setJobSchedule"]["job"]["schedule"]
    assert schedule["nextRunAt"] == schedule["nextRuns"][0]
    mornings = [datetime.fromisoformat(each).astimezone(ZoneInfo("Europe/Madrid")) for each in schedule["nextRuns"]]
    assert [(each.hour, each.minute) for each in mornings] == [(6, 30)] * 3

    last = toured.events(STOP)[-1]["execution"]
    assert (last["status"], last["closeReason"]) == ("CANCELLED", "STOPPED_BY_USER")
    assert last["itemsScraped"] < PRODUCTS

    with (toured.folder / "items.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == PRODUCTS

    resumed = toured.answer(GO_ON)["jobRun"]
    assert (resumed["itemsScraped"], resumed["items"]["totalCount"]) == (PRODUCTS, PRODUCTS)


@needs_sandbox
async def test_deploying_promoting_and_rolling_back_do_what_they_say(toured: Toured) -> None:
    for block in (DEPLOY, PREVIEW):
        assert toured.events(block)[-1]["logs"]["complete"] is True
        assert "Good morning, Ada</h1>" in toured.said[block]
    assert "<p>Sunflowers" in toured.said[DEPLOY]
    assert "<p>Tulips" in toured.said[PREVIEW]
    flowers = re.findall("<p>(Sunflowers|Tulips)", toured.said[ROLL_BACK])
    assert flowers == ["Tulips", "Sunflowers"]


@needs_sandbox
async def test_the_greeting_names_the_repository_and_how_sites_are_addressed(toured: Toured) -> None:
    assert "http://127.0.0.1:8900/git/garden" in toured.greeting
    template = re.search(r"Sites +(\S+)/\n", toured.greeting)
    assert template is not None
    prefix, _, suffix = template[1].partition("<project>")
    site = toured.answer(DEPLOY, 0)["setEnvironmentVariables"]["project"]["url"]
    assert site.startswith(prefix)
    assert site.endswith(suffix)
