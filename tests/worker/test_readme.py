"""The README's tour, run exactly as it is printed, against `switchyard run` as a newcomer starts it."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.embedded import children
from tests.harness.processes import CHECKOUT, CLI, Program, child_environment
from tests.harness.waiting import eventually

PRACTICE_PORT = 8900
PRODUCTS = 36
START_SECONDS = 60


def tour() -> list[str]:
    """The commands of the section, block by block."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)


@pytest_asyncio.fixture
async def api_url(tmp_path: Path) -> AsyncIterator[str]:
    """Everything, started by the command that `make run` uses."""
    if not children.port_is_free("127.0.0.1", PRACTICE_PORT):
        pytest.skip(f"port {PRACTICE_PORT} is in use, and the tour names it")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path / "run.log"
    arguments = (CLI, "run", "--port", str(port), "--data", str(tmp_path / "data"))
    program = Program(arguments, environment=child_environment({}), log=log)
    try:
        await eventually(lambda: b"Switchyard is ready" in log.read_bytes(), START_SECONDS, what=program.log_tail())
        yield f"http://localhost:{port}/graphql"
    finally:
        code = await program.stop()
    assert code == 0


async def test_the_tour_does_what_it_says(api_url: str, tmp_path: Path) -> None:
    script = "\n".join(f"echo '== {number}'\n{block}" for number, block in enumerate(tour()))
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "API": api_url},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, *parts = re.split(r"^== (\d)\n", done.stdout, flags=re.MULTILINE)
    said = {number: text.strip() for number, text in zip(parts[::2], parts[1::2], strict=True)}
    assert '"errors"' not in done.stdout, done.stdout
    assert json.loads(said["1"])["data"]["me"] == {
        "id": json.loads(said["1"])["data"]["me"]["id"], "username": "ada", "role": "USER"
    }  # fmt: skip

    numbers = [int(found) for found in re.findall(r'"sequence":(\d+)', said["3"])]
    assert numbers == list(range(1, len(numbers) + 1)), "the log has a gap or a repetition"
    assert '"complete":true' in said["3"]
    finished = json.loads(said["3"].splitlines()[-1])["data"]["jobRun"]
    assert (finished["status"], finished["closeReason"], finished["itemsScraped"]) == (
        "SUCCEEDED",
        "FINISHED",
        PRODUCTS,
    )

    states = [json.loads(line[6:]) for line in said["4"].splitlines() if line.startswith("data: {")]
    last = states[-1]["data"]["execution"]
    assert (last["status"], last["closeReason"]) == ("CANCELLED", "STOPPED_BY_USER")
    assert last["itemsScraped"] < PRODUCTS

    with (tmp_path / "items.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == PRODUCTS

    resumed = json.loads(said["6"].splitlines()[-1])["data"]["jobRun"]
    assert (resumed["itemsScraped"], resumed["items"]["totalCount"]) == (PRODUCTS, PRODUCTS)
