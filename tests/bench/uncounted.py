"""The API without its counters, to measure against: nothing is counted of requests, operations and caches."""

from __future__ import annotations

import sys

import cli
from adapters.metrics import Metrics


def forget(*_: object) -> None:
    """Count nothing."""


if __name__ == "__main__":
    for name in ("count_request", "count_operation", "count_lookup"):
        setattr(Metrics, name, forget)
    sys.exit(cli.main(["api"]))
