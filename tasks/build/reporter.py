"""What a build says and does, told in the log and on the execution: the listener of build runners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adapters.sandbox.contract import Phase, PhaseExit, StopBuild
from models.deployments import DeploymentStep
from tasks.build.output import BuildOutput
from tasks.masking import Masker
from tasks.work import Work

_PROGRESS: Final[dict[str, int]] = {DeploymentStep.INSTALLING: 15, DeploymentStep.BUILDING: 45}
MAX_REFUSALS: Final = 50


class Reporter:
    """Fulfils `adapters.sandbox.contract.BuildListener`; everything that reaches the log is masked."""

    def __init__(self, work: Work, secrets: Iterable[tuple[str, str]], *, limit_bytes: int) -> None:
        self.refusals: list[str] = []
        self.is_log_full = False
        self._work = work
        self._masker = Masker(secrets)
        self._output = BuildOutput(work.log, self._masker, limit_bytes=limit_bytes)

    @property
    def unmasked_names(self) -> list[str]:
        """Variables whose values are too short or too common to be masked."""
        return list(self._masker.unmasked_names)

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
        try:
            await self._output.write(data, is_error=is_error)
        except StopBuild:
            self.is_log_full = True
            raise

    async def refused(self, target: str, reason: str) -> None:
        """Show what the build may not reach."""
        self.refusals.append(target)
        if len(self.refusals) <= MAX_REFUSALS:
            await self._work.log.warning(f"Refused a connection to {target}: {reason}.")
