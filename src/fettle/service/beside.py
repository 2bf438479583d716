"""What goes on beside the requests: silent sessions end, checkpoints expire, unpaid runs rest, a model is tried."""

import asyncio
import logging
from functools import partial

from fettle.broker import Broker
from fettle.config import SamplingParams
from fettle.errors import FettleError
from fettle.service.checkpoints import Checkpoints
from fettle.service.entries import Session
from fettle.service.goingon import GoingOn
from fettle.service.models import Models
from fettle.service.runs import Runs
from fettle.service.samplers import Samplers
from fettle.service.sessions import Sessions

logger = logging.getLogger(__name__)

UNPAID = "the balance is used up"
"""Why a run is paused that goes on by itself once its tenant has paid."""
TRY_AGAIN_S = 5.0


class Beside:
    """Each of its methods is called by nobody's request."""

    def __init__(self, runs: Runs, samplers: Samplers, checkpoints: Checkpoints, sessions: Sessions) -> None:
        self._runs = runs
        self._samplers = samplers
        self._checkpoints = checkpoints
        self._sessions = sessions
        self._going_on = GoingOn()

    async def sweep(self) -> None:
        """Finish silent sessions, delete checkpoints whose time is up or that were overwritten, close what is over."""
        for session in self._sessions.silent():
            await self.finish(session)
        for entry in self._checkpoints.expired():
            self._going_on.attempt(f"delete {entry.id}", partial(self._checkpoints.delete, entry))
        self._going_on.attempt("tidy", self._checkpoints.tidy)
        self._runs.close_again()

    async def close(self, *, patience_s: float) -> None:
        """End what goes on, up to a limit."""
        await self._going_on.close(patience_s=patience_s)

    async def finish(self, session: Session) -> None:
        """End a session: its samplers go, and its runs give their memory back until they are worked on again."""
        await self._sessions.finish(session)
        self._samplers.finish_session(session.id)
        for run in self._runs.of_session(session.id):
            self._runs.rest(run)

    async def pause_unpaid(self, tenant: str) -> None:
        """Pause the runs of a tenant whose balance is used up."""
        for run in self._runs.of(tenant):
            if run.state == "active":
                await self._runs.pause(run, UNPAID)

    async def resume_paid(self, tenant: str) -> None:
        """Resume those runs of a tenant who has paid."""
        for run in self._runs.of(tenant):
            if run.state == "paused" and run.reason == UNPAID:
                await self._runs.set_state(run, "active")


async def generated(broker: Broker, models: Models) -> None:
    """Return once one token of the first model was really drawn."""
    model = next(iter(models))
    while True:
        try:
            sampler = await broker.sampler(model.path)
            await sampler.sample([0], 1, SamplingParams(max_tokens=1))
        except FettleError as error:
            logger.error("the model %s does not generate: %s", model.name, error.message)
            await asyncio.sleep(TRY_AGAIN_S)
        else:
            return
