"""What a build says and does, told in the log and on the execution: the listener of build runners."""

from __future__ import annotations

from typing import Final

from adapters.sandbox.contract import Phase, PhaseExit
from models.deployments import DeploymentStep
from tasks.build.output import BuildOutput
from tasks.masking import Masker
from tasks.work import Work

_PROGRESS: Final[dict[str, int]] = {DeploymentStep.INSTALLING: 15, DeploymentStep.BUILDING: 45}
MAX_REFUSALS: Final = 50


class Reporter:
    """Fulfils `adapters.sandbox.contract.BuildListener`; everything that reaches the log is masked."""

    def __init__(self, work: Work, masker: Masker, *, limit_bytes: int) -> None:
        self.refusals = 0
        self._work = work
        self._masker = masker
        self._output = BuildOutput(work.log, masker, limit_bytes=limit_bytes)

    @property
    def is_log_full(self) -> bool:
        """Whether the build was stopped because it printed too much."""
        return self._output.exceeded

    def last_error_line(self) -> str | None:
        """The line that says best what went wrong, masked."""
        return self._output.last_error_line()

    async def phase_started(self, phase: Phase) -> None:
        """Show the step, and the command as it was configured."""
        progress = _PROGRESS.get(phase.name)
        if progress is not None:
            await self._work.advance(progress, stage=phase.name)
            await self._work.log.info(self._masker.mask(f"$ {phase.command}"))

    async def phase_ended(self, exit: PhaseExit) -> None:
        """Show what was held back until its line would end."""
        await self._output.close()

    async def output(self, data: bytes, *, is_error: bool) -> None:
        """Show what the build writes; raises StopBuild past the limit."""
        await self._output.write(data, is_error=is_error)

    async def refused(self, target: str, reason: str) -> None:
        """Show what the build may not reach."""
        self.refusals += 1
        if self.refusals <= MAX_REFUSALS:
            await self._work.log.warning(self._masker.mask(f"Refused a connection to {target}: {reason}."))
