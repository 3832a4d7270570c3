"""How builds fail, in words: from the end of a phase to a failure that tells people what to do."""

from __future__ import annotations

from typing import Final

from adapters.git import CloneFailure
from adapters.sandbox.contract import PhaseEnd, PhaseExit
from models.deployments import DeploymentStep
from models.executions import Failure, FailureCode
from settings import Settings

_EXIT_CODES: Final = {
    DeploymentStep.INSTALLING: FailureCode.INSTALL_FAILED,
    DeploymentStep.BUILDING: FailureCode.COMMAND_FAILED,
}
_DOING: Final = {
    DeploymentStep.CLONING: "Cloning",
    DeploymentStep.INSTALLING: "Installing dependencies",
    DeploymentStep.BUILDING: "The build command",
}


def of_phase(end: PhaseExit, said: str | None, settings: Settings) -> Failure:
    """The failure of an install or build phase; `said` is what it printed about it, masked."""
    step = DeploymentStep(end.phase)
    doing = _DOING[step]
    detail = f" It said: {said}" if said else ""
    match end.end:
        case PhaseEnd.TIMED_OUT:
            seconds = (
                settings.build_install_seconds if step is DeploymentStep.INSTALLING else settings.build_command_seconds
            )
            message = f"{doing} took longer than {seconds} s and was stopped.{detail}"
            return Failure(FailureCode.TIMED_OUT, message, step, retryable=True)
        case PhaseEnd.OUT_OF_MEMORY:
            message = (
                f"{doing} used more than {settings.build_memory_megabytes:,} MB of memory and was stopped. "
                "Build less at once, or ask the operator for more."
            )
            return Failure(FailureCode.OUT_OF_MEMORY, message, step, end.exit_code, end.signal)
        case PhaseEnd.DISK_FULL:
            message = f"{doing} took more than {settings.build_disk_megabytes:,} MB of disk and was stopped."
            return Failure(FailureCode.OUTPUT_TOO_LARGE, message, step)
        case PhaseEnd.EGRESS_LIMIT:
            message = f"{doing} moved more than {settings.build_egress_megabytes:,} MB over the network."
            return Failure(_EXIT_CODES.get(step, FailureCode.COMMAND_FAILED), message, step)
    ended = f"was ended by signal {end.signal}" if end.signal is not None else f"ended with exit code {end.exit_code}"
    return Failure(_EXIT_CODES[step], f"{doing} {ended}.{detail}", step, end.exit_code, end.signal)


def of_clone(end: PhaseExit, told: CloneFailure, *, is_blocked: bool) -> Failure:
    """The failure of a clone; one that the address guard refused is named so."""
    code = FailureCode.CLONE_FAILED
    if end.end is PhaseEnd.TIMED_OUT:
        code = FailureCode.TIMED_OUT
    elif is_blocked:
        code = FailureCode.BLOCKED_URL
    return Failure(code, told.message, DeploymentStep.CLONING, signal=end.signal, retryable=told.is_temporary)


def output_missing(output_directory: str) -> Failure:
    """The failure of a build that made nothing."""
    message = (
        f"The build made no folder {output_directory}. Set the project's output directory to the one it fills, or "
        "correct the build command."
    )
    return Failure(FailureCode.OUTPUT_MISSING, message, DeploymentStep.COLLECTING)


def log_limit(settings: Settings, phase: str) -> Failure:
    """The failure of a build that prints without end."""
    message = f"The build printed more than {settings.build_log_megabytes:,} MB and was stopped. Make it say less."
    return Failure(FailureCode.LOG_LIMIT_EXCEEDED, message, phase)


def size(size_bytes: int) -> str:
    """Bytes as people read them."""
    value = float(size_bytes)
    for unit in ("bytes", "KB", "MB"):
        if value < 1_000:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1_000
    return f"{value:,.1f} GB"
