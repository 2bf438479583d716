"""``EnvironmentService``: what each call does, whichever way it comes in."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from fettle.environments.base import Environment
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.offers import TASKS_LISTED, Offers
from fettle.environments.remote.refusals import Refusal, failed
from fettle.environments.remote.sessions import Sessions
from fettle.environments.remote.streams import side_by_side
from fettle.types import Task

BATCHED = 1024
"""Steps in one batch, at most."""
IN_FLIGHT = 1024
"""Calls of one stream that are worked on at once; further ones are not read until one of them is answered."""

Send = Callable[[pb.StreamStepResponse], Awaitable[None]]


class EnvironmentService:
    """The calls. Every one of them raises ``Refusal`` where it is not answered."""

    def __init__(self, offers: Offers, sessions: Sessions) -> None:
        self._offers = offers
        self._sessions = sessions

    async def list_environments(self, request: pb.ListEnvironmentsRequest) -> pb.ListEnvironmentsResponse:
        """What is offered."""
        found = [
            pb.EnvironmentInfo(environment_id=name, environment_type=each.type, settings=each.settings)
            for name, each in self._offers.offers.items()
            if request.environment_type in ("", each.type)
        ]
        return pb.ListEnvironmentsResponse(environments=found, max_message_bytes=self._sessions.room.message_bytes)

    async def list_tasks(self, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        """Prompts of tasks, and references that a reset takes."""
        played = await self._offers.played(request.chosen)
        total = await asyncio.to_thread(lambda: played.heldout)
        end = request.first + min(request.count, TASKS_LISTED)
        if request.split == pb.SPLIT_HELDOUT:
            end = min(end, total)
        response, size = pb.ListTasksResponse(total=total), 0
        for index in range(request.first, end):
            task, digest = await played.task(request.split, index)
            listed = pb.ListedTask(
                reference=pb.TaskReference(split=request.split, index=index, prompt_digest=digest),
                prompt=map(wire.message_out, task.prompt),
            )
            size += listed.ByteSize() + 16
            if size > self._sessions.room.message_bytes // 2 and response.tasks:
                break
            response.tasks.append(listed)
        return response

    async def reset(self, request: pb.ResetRequest) -> pb.ResetResponse:
        """Begin an episode."""
        return await self._sessions.reset(request, partial(self._begin, request))

    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """Play a turn."""
        return await self._sessions.step(request)

    async def batch_step(self, request: pb.BatchStepRequest) -> pb.BatchStepResponse:
        """Play turns of several episodes at once."""
        if len(request.requests) > BATCHED:
            why = f"a batch has {len(request.requests)} steps, and {BATCHED} at most are taken: send several"
            raise Refusal(pb.FAULT_CODE_TOO_LARGE, why)
        return pb.BatchStepResponse(outcomes=await asyncio.gather(*map(self._outcome, request.requests)))

    async def renew(self, request: pb.RenewRequest) -> pb.RenewResponse:
        """Begin leases anew."""
        return pb.RenewResponse(lost=self._sessions.renew(request.session_ids))

    async def close(self, request: pb.CloseRequest) -> pb.CloseResponse:
        """End an episode."""
        self._sessions.close(request.session_id)
        return pb.CloseResponse()

    async def health_check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        """How the server is."""
        serving = not self._sessions.draining
        status = pb.HealthCheckResponse.STATUS_SERVING if serving else pb.HealthCheckResponse.STATUS_NOT_SERVING
        info = {"num_environments": str(len(self._offers.offers)), "num_sessions": str(self._sessions.live)}
        return pb.HealthCheckResponse(status=status, info=info, timestamp=int(time.time()))

    async def stream_step(self, requests: AsyncIterator[pb.StreamStepRequest], send: Send) -> None:
        """Calls of any number of episodes; each is answered when it is ready, by a frame with its number."""

        async def answered(frame: pb.StreamStepRequest) -> None:
            await send(await self._framed(frame))

        # When the caller has gone, its episodes go on until their leases end.
        await side_by_side(requests, answered, at_once=IN_FLIGHT)

    async def _begin(self, request: pb.ResetRequest) -> tuple[Environment, Task]:
        played = await self._offers.played(request.chosen)
        task, digest = await played.task(request.task.split, request.task.index)
        if request.task.prompt_digest not in (b"", digest):
            raise Refusal(
                pb.FAULT_CODE_TASKS,
                "the server's tasks are others than when they were listed: it was started anew with other settings",
            )
        return played.environment(), task

    async def _outcome(self, request: pb.StepRequest) -> pb.StepOutcome:
        try:
            return pb.StepOutcome(response=await self.step(request))
        except Refusal as refused:
            return pb.StepOutcome(fault=refused.fault)

    async def _framed(self, frame: pb.StreamStepRequest) -> pb.StreamStepResponse:
        response = pb.StreamStepResponse(call=frame.call)
        try:
            async with asyncio.timeout(frame.deadline_ms / 1000 if frame.deadline_ms else None):
                await self._filled(frame, response)
        except Refusal as refused:
            response.fault.CopyFrom(refused.fault)
        except TimeoutError:
            why = f"no answer within the deadline of {frame.deadline_ms} ms; the same turn may be asked for again"
            response.fault.CopyFrom(Refusal(pb.FAULT_CODE_TIMEOUT, why).fault)
        except Exception as error:  # noqa: BLE001  it is told, without its words; the other calls of the stream go on
            response.fault.CopyFrom(failed("the call", error).fault)
        return response

    async def _filled(self, frame: pb.StreamStepRequest, response: pb.StreamStepResponse) -> None:
        match frame.WhichOneof("request"):
            case "step":
                response.step.CopyFrom(await self.step(frame.step))
            case "reset":
                response.reset.CopyFrom(await self.reset(frame.reset))
            case "renew":
                response.renewed.CopyFrom(await self.renew(frame.renew))
            case "close":
                response.closed.CopyFrom(await self.close(frame.close))
            case _:
                raise Refusal(pb.FAULT_CODE_INVALID, "a frame asks for nothing that this server knows of")
