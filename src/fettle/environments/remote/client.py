"""A suite whose environments are at a server. It is a ``Suite`` as any other, and an episode an ``Environment``."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

from fettle.config import Remote
from fettle.environments.base import Environment, Observation, StepResult, Suite
from fettle.environments.remote import environment_pb2 as pb
from fettle.environments.remote import wire
from fettle.environments.remote.connection import Connection
from fettle.environments.remote.troubles import Trouble
from fettle.errors import DataError, EnvironmentFault
from fettle.types import Message, Task

PAGE = 256
"""Training tasks that are fetched at once."""
PAGES = 64
"""Pages that are kept."""
FAR = 2**40
"""Indices from here on are drawn from all there are, and have no neighbours worth fetching."""

Page = tuple[Task, ...]


def suite(config: Remote) -> Suite:
    """What the server at ``config.address`` calls ``config.environment``."""
    return RemoteSuite(config)


class RemoteSuite:
    """Tasks of a server. Prompts come by the page, the next page before it is needed; answers never come.

    Raises:
        FettleError: the server is away, does not let us in, or has no such environment or setting.
    """

    def __init__(self, config: Remote) -> None:
        self.name = config.environment
        self._connection = connection(config)
        told = described(self._connection)
        self._connection.largest = told.max_message_bytes
        self._chosen = wire.chosen(config.environment, _laid_over(config, told))
        self._pages: OrderedDict[int, Future[Page]] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix="fettle-tasks")
        self._heldout = self._listed(pb.SPLIT_HELDOUT, 0, None)

    def training_task(self, index: int) -> Task:
        """The server's task of that index."""
        if index >= FAR:
            return self._listed(pb.SPLIT_TRAINING, index, 1)[0]
        number, place = divmod(index, PAGE)
        page, _ = self._page(number), self._page(number + 1)
        return page.result()[place]

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks that the server keeps for evaluation."""
        return self._heldout

    def environment(self) -> Environment:
        """A new session, once it is reset."""
        return RemoteEnvironment(self._connection, self._chosen)

    def _page(self, number: int) -> "Future[Page]":
        with self._lock:
            page = self._pages.get(number)
            if page is None or (page.done() and page.exception() is not None):
                page = self._fetching.submit(self._listed, pb.SPLIT_TRAINING, number * PAGE, PAGE)
                self._pages[number] = page
            self._pages.move_to_end(number)
            if len(self._pages) > PAGES:
                self._pages.popitem(last=False)
            return page

    def _listed(self, split: "pb.Split", first: int, count: int | None) -> Page:
        """``count`` tasks, or all there are."""
        found: list[Task] = []
        while count is None or len(found) < count:
            request = pb.ListTasksRequest(
                chosen=self._chosen,
                split=split,
                first=first + len(found),
                count=PAGE if count is None else count - len(found),
            )
            response = self._asked("ListTasks", request, pb.ListTasksResponse)
            found += (self._task(listed) for listed in response.tasks)
            if not response.tasks or (count is None and len(found) >= response.total):
                break
        return tuple(found)

    def _task(self, listed: pb.ListedTask) -> Task:
        reference = listed.reference
        names = {number: name for name, number in wire.SPLITS.items()}
        data = {
            "split": names[reference.split],
            "index": reference.index,
            "prompt_digest": reference.prompt_digest.hex(),
        }
        return Task(wire.messages_in(listed.prompt), data, self.name)

    def _asked(self, method: str, request: Any, answer: type[Any]) -> Any:
        try:
            return self._connection.ask(method, request, answer)
        except Trouble as trouble:
            raise trouble.kind(trouble.sentence) from trouble


class RemoteEnvironment:
    """One episode at a server: a session there, from the reset to the close."""

    def __init__(self, connection: Connection, chosen: pb.Chosen) -> None:
        self._connection = connection
        self._chosen = chosen
        self._session = ""
        self._turn = 0
        self._request = pb.ResetRequest()
        self._first = pb.Observation()

    async def reset(self, task: Task) -> Observation:
        """Begin ``task``, which is one of the suite's."""
        if self._session:
            raise EnvironmentFault("an environment plays one episode, and this one has begun: make another")
        self._request = pb.ResetRequest(chosen=self._chosen, task=_reference(task))
        try:
            self._first = await self._opened()
        except Trouble as trouble:
            raise EnvironmentFault(trouble.sentence) from trouble
        return wire.observation_in(self._first)

    async def step(self, action: Message) -> StepResult:
        """Send what the policy said; the server's answer."""
        if not self._session:
            raise EnvironmentFault("there is no episode to step: reset a new environment with a task first")
        self._turn += 1
        try:
            return wire.step_in(await self._stepped(wire.message_out(action)))
        except Trouble as trouble:
            raise EnvironmentFault(trouble.sentence) from trouble

    async def close(self) -> None:
        """Let the server go of the session; nobody waits for that."""
        self._connection.let_go(self._session)

    async def _stepped(self, action: pb.Message) -> pb.StepResponse:
        try:
            return await self._connection.step(self._asked(action))
        except Trouble as trouble:
            if not trouble.lost or self._turn > 1:
                raise
        # The server was started anew before it answered a step: of the episode there is only its beginning yet.
        self._connection.let_go(self._session)
        if await self._opened() != self._first:
            raise Trouble(f"the server at {self._connection.address} was started anew, and begins the task otherwise")
        return await self._connection.step(self._asked(action))

    async def _opened(self) -> pb.Observation:
        self._session = self._request.session_id = secrets.token_hex(16)
        return (await self._connection.open(self._request)).observation

    def _asked(self, action: pb.Message) -> pb.StepRequest:
        return pb.StepRequest(session_id=self._session, turn=self._turn, action=action)


REACHING = {"address", "token_variable", "token_file", "tls", "patience", "call_seconds"}
"""Settings that say how a server is reached."""
_CONNECTIONS: "WeakValueDictionary[str, Connection]" = WeakValueDictionary()
_CONNECTING = threading.Lock()


def connection(config: Remote) -> Connection:
    """The connection to a server, which all suites of this process share that reach it in the same way."""
    reached = config.model_dump_json(include=REACHING)
    with _CONNECTING:
        found = _CONNECTIONS.get(reached)
        if found is None:
            found = _CONNECTIONS[reached] = Connection(config)
        return found


def _laid_over(config: Remote, told: pb.ListEnvironmentsResponse) -> dict[str, Any]:
    """The settings that are sent. How many tasks are held out is left to environments that do not let it be chosen."""
    allowed = {
        name for each in told.environments if each.environment_id == config.environment for name in each.settings
    }
    heldout = config.heldout if "heldout" in allowed else None
    named = {"system": config.system, "seed": config.seed, "heldout": heldout}
    return {**config.settings, **{name: value for name, value in named.items() if value is not None}}


def _reference(task: Task) -> pb.TaskReference:
    data: Mapping[str, Any] = task.data
    try:
        digest = bytes.fromhex(data["prompt_digest"])
        return pb.TaskReference(split=wire.SPLITS[data["split"]], index=data["index"], prompt_digest=digest)
    except (KeyError, TypeError, ValueError) as error:
        why = f"task {task.id} of {task.source} is none that a server has listed: take it from the suite"
        raise DataError(why) from error


def offered(config: Remote) -> Sequence[pb.EnvironmentInfo]:
    """The environments of a server.

    Raises:
        FettleError: the server is away, or does not let us in.
    """
    return described(connection(config)).environments


def described(server: Connection) -> pb.ListEnvironmentsResponse:
    """What a server says of itself.

    Raises:
        FettleError: it is away, or does not let us in.
    """
    try:
        return server.ask("ListEnvironments", pb.ListEnvironmentsRequest(), pb.ListEnvironmentsResponse)
    except Trouble as trouble:
        raise trouble.kind(trouble.sentence) from trouble
