"""What is told of a run here, told to the service as well, for its console."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fettle.client.transport import Transport
from fettle.errors import FettleError
from fettle.frames import Tree
from fettle.tracking import Transcript

logger = logging.getLogger(__name__)


class RunTracker:
    """Satisfies ``Tracker``: rows and samples are posted in the background, in order; ``run_id`` says to which run.

    A service that does not take them ends the posting and not the run.
    """

    def __init__(self, transport: Transport, run_id: Callable[[], str]) -> None:
        self._transport = transport
        self._run_id = run_id
        self._waiting: list[tuple[str, Tree]] = []
        self._posting: asyncio.Task[None] | None = None
        self._refused = False

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row."""
        self._post("metrics", {"step": step, **row})

    def transcripts(self, step: int, pages: Sequence[Transcript]) -> None:
        """Samples drawn after ``step`` steps."""
        for page in pages:
            self._post("episodes", _episode(step, page))

    def close(self) -> None:
        """Nothing more will come; ``drained`` waits for what is under way."""

    async def drained(self) -> None:
        """Returns once everything is posted, or refused."""
        if self._posting is not None:
            await asyncio.wait([self._posting])

    def _post(self, what: str, said: dict[str, Any]) -> None:
        if self._refused:
            return
        self._waiting.append((what, said))
        if self._posting is None or self._posting.done():
            self._posting = asyncio.get_running_loop().create_task(self._posted())

    async def _posted(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for what, name in (("metrics", "rows"), ("episodes", "episodes")):
                said = [each for kind, each in waiting if kind == what]
                if not said:
                    continue
                try:
                    await self._transport.post(f"/v1/runs/{self._run_id()}/{what}", {name: said})
                except FettleError as error:
                    logger.warning("the service is told no more of this run: %s", error.message)
                    self._refused = True
                    return


def _episode(step: int, page: Transcript) -> dict[str, Tree]:
    return {
        "step": step,
        "task": page.title,
        "reward": page.reward,
        "components": dict(page.components),
        "messages": [{"role": message.role, "content": message.content} for message in page.messages],
        "note": page.note,
    }
