"""Suites of tasks with tools: what is asked, what may be called, and what the answer earns."""

import asyncio
import importlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from fettle.config import JSONL, Calculations, FileTasks, HTTPServer, Lookups, Questions, Tools
from fettle.environments.base import Environment, Suite
from fettle.environments.generated import GeneratedTasks
from fettle.environments.jsonl import suite as file_suite
from fettle.environments.scoring import ScoringThread
from fettle.environments.tools.calculator import calculator
from fettle.environments.tools.corpus import Corpus, read_corpus
from fettle.environments.tools.environment import ToolEnvironment
from fettle.environments.tools.python import python
from fettle.environments.tools.tasks import NAME, Gazetteer, calculations, file_tasks, lookups
from fettle.environments.tools.tool import Tool, ToolMistake, tool, tools_of
from fettle.environments.tools.workspace import Workspace
from fettle.errors import ConfigError, DataError, did_you_mean
from fettle.rewards import in_tags, number, reward
from fettle.rows import Row, rows
from fettle.sandbox import isolation, sandbox
from fettle.types import Task

BUILT_IN = ("calculator", "python", "search", "files")
"""The tools that a recipe may name; ``files`` stands for three."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    "calculations": ("calculator",),
    "lookups": ("search", "calculator"),
    "files": ("files", "calculator"),
    "questions": (),
}
"""What tasks need where a recipe names no tools."""
MCP = "fettle.environments.tools.mcp"
Holders = Callable[[Workspace], list[Tool]]


class _Tasks(Protocol):
    def training_task(self, index: int) -> Task: ...

    def heldout_tasks(self) -> Sequence[Task]: ...


class _Server(Protocol):
    broken: bool

    async def tools(self) -> list[Tool]: ...

    async def close(self) -> None: ...


class ToolSuite:
    """Tasks, and an environment with tools for each episode."""

    def __init__(
        self,
        config: Tools,
        tasks: _Tasks,
        holders: Sequence[Holders],
        servers: Mapping[str, Callable[[], _Server]],
    ) -> None:
        """``holders`` and ``servers`` make the tools of one episode."""
        self.name = NAME
        self._config, self._tasks = config, tasks
        self._holders, self._servers = holders, servers
        scored = reward(config.tasks.reward) if isinstance(config.tasks, Questions) else number
        name = config.tasks.reward if isinstance(config.tasks, Questions) else "number"
        self._scored = partial(ScoringThread().scored, name, in_tags(scored))

    def training_task(self, index: int) -> Task:
        """The same for the same index."""
        return self._tasks.training_task(index)

    def heldout_tasks(self) -> Sequence[Task]:
        """The tasks kept for evaluation."""
        return self._tasks.heldout_tasks()

    def environment(self) -> Environment:
        """A new environment, with tools of its own."""
        own: list[_Server] = []

        async def brought(workspace: Workspace) -> list[Tool]:
            offered = [made for holder in self._holders for made in holder(workspace)]
            for name, make in self._servers.items():
                server = make()
                if not self._config.servers[name].shared:
                    own.append(server)
                offered += await server.tools()
            return offered

        async def closed() -> None:
            while own:
                await own.pop().close()

        config = self._config
        return ToolEnvironment(
            brought,
            self._scored,
            call_cost=config.call_cost,
            max_calls=config.max_calls,
            call_seconds=config.call_seconds,
            result_characters=config.result_characters,
            closed=closed,
        )


class _Shared:
    """A server for all episodes of one event loop, and another one once it breaks."""

    def __init__(self, make: Callable[[], _Server]) -> None:
        self._make = make
        self._kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Server] = weakref.WeakKeyDictionary()
        self._ending: set[asyncio.Task[None]] = set()

    def __call__(self) -> _Server:
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is not None and kept.broken:
            ending = loop.create_task(kept.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        if kept is None or kept.broken:
            kept = self._kept[loop] = self._make()
        return kept


def suite(config: Tools) -> Suite:
    """Tasks whose answer, in its tags, earns 1 less what the calls on the way to it cost.

    Raises:
        ConfigError: there is no such tool or reward, or what a tool needs is not to be had.
        DataError: a file of questions or documents cannot be used.
    """
    tasks, corpus = _tasks(config)
    names = config.tools or NEEDED[config.tasks.type]
    return ToolSuite(config, tasks, [_holder(name, config, corpus) for name in names], _servers(config))


def _tasks(config: Tools) -> tuple[_Tasks, Corpus | None]:
    corpus = read_corpus(config.corpus) if config.corpus is not None else None
    asked = config.tasks
    match asked:
        case Calculations():
            draw = calculations(asked, config.system)
        case Lookups():
            places = Gazetteer(asked.places, config.seed)
            draw, corpus = lookups(asked, places, config.system), corpus or places.corpus
        case FileTasks():
            draw = file_tasks(asked, config.system)
        case Questions():
            file = JSONL(
                path=asked.path, reward=asked.reward, system=config.system, seed=config.seed, heldout=config.heldout
            )
            for row in rows(asked.path):
                _check_files(row)
            return _Named(file_suite(file)), corpus
    return GeneratedTasks(NAME, draw, seed=config.seed, heldout=config.heldout), corpus


def _check_files(row: Row) -> None:
    """Refuses files that a workspace could not begin with or, written, not end with."""
    for name in ("files", "written"):
        given = row.fields.get(name, {})
        if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
            raise DataError(f"{row.place}: {name} must be an object of texts by path")
        try:
            Workspace(given)
        except ToolMistake as mistake:
            raise DataError(f"{row.place}: {name}: {mistake}") from mistake


class _Named:
    """The tasks of a file, as those of this suite."""

    def __init__(self, tasks: Suite) -> None:
        self._tasks = tasks

    def training_task(self, index: int) -> Task:
        return _renamed(self._tasks.training_task(index))

    def heldout_tasks(self) -> Sequence[Task]:
        return [_renamed(task) for task in self._tasks.heldout_tasks()]


def _renamed(task: Task) -> Task:
    return Task(task.prompt, task.data, NAME)


def _holder(name: str, config: Tools, corpus: Corpus | None) -> Holders:
    """What makes the tools of one name for an episode, around its files."""
    if name == "calculator":
        return _fixed(tool(calculator))
    if name == "python":
        isolation(config.sandbox)  # where it fails closed, that is said before anything is trained
        return _fixed(python(sandbox(config.sandbox)))
    if name == "search" and corpus is not None:
        return _fixed(tool(corpus.search))
    if name == "files":
        return tools_of
    return _fixed(_own(name))


def _fixed(made: Tool) -> Holders:
    return lambda workspace: [made]


def _own(name: str) -> Tool:
    module, colon, function = name.partition(":")
    if not colon:
        hint = did_you_mean(name, BUILT_IN) or f": use {', '.join(BUILT_IN)}, or package.module:function"
        raise ConfigError(f"no tool is named {name!r}{hint}")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # the module is the user's, and may fail in any way while it is imported
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"tool {name} cannot be imported ({what}): is it on PYTHONPATH?") from error
    made = getattr(found, function, None)
    if isinstance(made, Tool):
        return made
    if not callable(made):
        near = did_you_mean(function, (known for known in vars(found) if callable(getattr(found, known))))
        raise ConfigError(f"module {module} has no function {function!r} to use as a tool{near}")
    return tool(made)


def _servers(config: Tools) -> dict[str, Callable[[], _Server]]:
    if not config.servers:
        return {}
    for server in config.servers.values():
        if isinstance(server, HTTPServer):
            server.token()  # one that is not there is missed now
    try:
        module = importlib.import_module(MCP)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"servers of tools need the package {error.name}, which is not installed: pip install 'fettle[tools]'"
        ) from error
    made = {name: partial(module.Server, name, server) for name, server in config.servers.items()}
    return {name: _Shared(make) if config.servers[name].shared else make for name, make in made.items()}
