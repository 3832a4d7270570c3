"""Build runners: bubblewrap on this machine, a Docker Engine, or Kubernetes jobs, by settings."""

from __future__ import annotations

from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import BuildRunner
from adapters.sandbox.docker import DockerRunner
from adapters.sandbox.kubernetes import KubernetesRunner
from settings import BuildRunnerKind, Settings


def open_runner(settings: Settings) -> BuildRunner:
    """The runner that the settings name."""
    match settings.build_runner:
        case BuildRunnerKind.SANDBOX:
            return BubblewrapRunner(settings)
        case BuildRunnerKind.DOCKER:
            return DockerRunner(settings)
        case BuildRunnerKind.KUBERNETES:
            return KubernetesRunner(settings)
