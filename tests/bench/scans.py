"""A scan from asking to its end, over the stand-alone service and HTTP, against calling the scanner as a library."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from adapters import scanner
from tests.bench.place import Place, percentile, place
from tests.harness.processes import CLI, Program
from tests.risk_sentences import parts

ROUNDS = 30
SUBMIT = "mutation ($input: SubmitScanInput!) { submitScan(input: $input) { scan { id } } }"
READ = "query ($id: ID!) { scan(id: $id) { status riskCount } }"
SIZES = (1_000, 100_000)


async def main() -> None:
    """Print the median of both ways for a short and a long text, and the ratio."""
    async with place() as here:
        service = Program([CLI, "ai-service", "--listen", "127.0.0.1:0"], environment=here.environment, log=_log(here))
        here.programs.append(service)
        port = (await service.wait_event("ai_service_listening"))["port"]
        here.environment["AI_SERVICE_URL"] = f"http://127.0.0.1:{port}"
        await here.worker()
        prose = "\n\n".join(sentence.text for sentences in parts().values() for sentence in sentences)
        for size in SIZES:
            text = (prose * (size // len(prose) + 1))[:size]
            await _scan(here, text)  # rules are compiled at the first one
            through = [await _scan(here, text) for _ in range(ROUNDS)]
            direct = [_call(text) for _ in range(ROUNDS)]
            one, other = percentile(through, 0.5), percentile(direct, 0.5)
            print(
                f"{size:>7} characters: scan {one * 1000:7.1f} ms  library {other * 1000:7.1f} ms  "
                f"ratio {one / other:6.2f}  (medians of {ROUNDS})"
            )


async def _scan(here: Place, text: str) -> float:
    started = time.perf_counter()
    made: dict[str, Any] = await here.client.run(SUBMIT, {"input": {"text": text}}, token=here.person.token)
    scan_id = made["submitScan"]["scan"]["id"]
    while True:
        found = (await here.client.run(READ, {"id": scan_id}, token=here.person.token))["scan"]
        if found["status"] not in ("QUEUED", "RUNNING"):
            break
    assert found["status"] == "SUCCEEDED", found
    return time.perf_counter() - started


def _call(text: str) -> float:
    started = time.perf_counter()
    scanner.scan(text)
    return time.perf_counter() - started


def _log(here: Place) -> Path:
    return here.folder / "ai-service.log"
