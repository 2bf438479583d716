"""Episodes played at a server of environments. Needs the extra ``remote``.

The server names its episodes by number and draws them from the run's seed, so that the numbers are those of episodes
played here. A call that was not answered is made again, and answered once; where the server has lost the episodes,
they are begun anew and the decisions so far repeated.

Axes: E episodes.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress

from fettle.config import Remote
from fettle.config.router import RLLM, RolloutService
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.client import connection, described
from fettle.environments.remote.connection import Connection
from fettle.environments.remote.troubles import Trouble
from fettle.errors import ConfigError
from fettle.router.nouns import Choices, Seen, Terms
from fettle.router.simulators import simulator_of
from fettle.router.wire import NAME, modes_out, seen_in
from fettle.types import Message


class RemoteWorld:
    """Satisfies ``World``: one session of the server at a time, called from this thread.

    Raises:
        FettleError: the server is away, does not let us in, or does not play these episodes.
    """

    def __init__(self, rllm: RLLM, *, count: int) -> None:
        simulator = rllm.simulator
        self.features = simulator_of(simulator).features
        self.count = count
        self._connection = connected(rllm.rollout_service)
        settings = {
            "simulator": simulator.model_dump(),
            "episodes": count,
            "episode_length": rllm.trainer.episode_length,
            "seed": rllm.trainer.seed,
        }
        self._request = pb.ResetRequest(chosen=wire.chosen(NAME, settings))
        self._modes: list[Choices] = []

    def begin(self, number: int) -> Seen:
        """In a session of their own."""
        self.close()
        self._modes = []
        self._request.task.CopyFrom(pb.TaskReference(split=pb.SPLIT_TRAINING, index=number))
        return self._begun()

    def step(self, modes: Choices) -> tuple[Seen, Terms]:
        """At the server, once, however often it has to be asked."""
        self._modes.append(modes)
        try:
            return self._told(len(self._modes))
        except Trouble as trouble:
            if not trouble.lost:
                raise trouble.kind(trouble.sentence) from trouble
        self._begun()
        try:
            return [self._told(turn) for turn in range(1, len(self._modes) + 1)][-1]
        except Trouble as trouble:
            raise trouble.kind(trouble.sentence) from trouble

    def close(self) -> None:
        """Let the server go of the session; it ends by itself where the server is away."""
        session, self._request.session_id = self._request.session_id, ""
        if session:
            with suppress(Trouble):
                self._connection.ask("Close", pb.CloseRequest(session_id=session), pb.CloseResponse, patience=0)

    def _begun(self) -> Seen:
        self._request.session_id = secrets.token_hex(16)
        try:
            response = self._connection.ask("Reset", self._request, pb.ResetResponse)
        except Trouble as trouble:
            raise trouble.kind(trouble.sentence) from trouble
        return self._read(response.observation.messages)[0]

    def _told(self, turn: int) -> tuple[Seen, Terms]:
        action = wire.message_out(Message("assistant", modes_out(self._modes[turn - 1])))
        request = pb.StepRequest(session_id=self._request.session_id, turn=turn, action=action)
        return self._read(self._connection.ask("Step", request, pb.StepResponse).messages)

    def _read(self, messages: Sequence[pb.Message]) -> tuple[Seen, Terms]:
        text = messages[0].content if messages else ""
        return seen_in(text, count=self.count, features=len(self.features))


def connected(service: RolloutService) -> Connection:
    """The connection to the server that the settings name, which says that it plays these episodes.

    Raises:
        FettleError: it is away, does not let us in, or does not play them.
    """
    found = connection(
        Remote(
            address=service.place,
            environment=NAME,
            token_variable=service.token_variable,
            token_file=service.token_file,
            tls=service.tls if service.encrypted else None,
            patience=service.patience,
        )
    )
    told = described(found)
    names = [each.environment_id for each in told.environments]
    if NAME not in names:
        raise ConfigError(
            f"the server at {service.place} serves {', '.join(names)}, and not {NAME}: start one by "
            f"fettle environments serve {NAME}"
        )
    found.largest = told.max_message_bytes
    return found
