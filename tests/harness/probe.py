"""A well-behaved client in a process of its own: asks every twenty milliseconds and writes down how long it waited.

Started as a program, it asks an API for `{ __typename }` and `/healthz` in turn, each time from another address, so
that no limit meets it. The clock is the machine's, which all processes share.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.harness.processes import Program

PERIOD_SECONDS = 0.02
QUESTION = json.dumps({"query": "{ __typename }"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: when it was asked, how long the answer took, its status, and the lag that the process admits to."""

    asked_at: float
    seconds: float
    status: int
    lag_seconds: float | None


class Probe(Program):
    """The probe as a child; `samples` are those asked between two moments of `time.monotonic`."""

    def samples(self, since: float, until: float) -> list[Sample]:
        """What was asked in this time, and answered so far."""
        found = [Sample(**_fields(event)) for event in self.events("asked")]
        return [sample for sample in found if since <= sample.asked_at <= until]


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "event"}


def main(port: int) -> None:
    """Ask until killed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for number in itertools.count():
        address = f"198.18.{number // 250 % 250}.{number % 250}"
        asked_at = time.monotonic()
        if number % 2:
            connection.request("GET", "/healthz")
        else:
            headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
            connection.request("POST", "/graphql", QUESTION, headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        seconds = time.monotonic() - asked_at
        lag = body["loopLagMilliseconds"] / 1_000 if number % 2 else None
        line = {"event": "asked", "asked_at": asked_at, "seconds": seconds, "status": answer.status, "lag_seconds": lag}
        print(json.dumps(line), flush=True)
        time.sleep(max(0.0, PERIOD_SECONDS - seconds))


if __name__ == "__main__":
    main(int(sys.argv[1]))
