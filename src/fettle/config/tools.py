"""Tasks that are solved with tools, the tools, and the servers that more of them come from."""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from fettle.config.base import Frozen
from fettle.config.remote import loopback
from fettle.config.rewards import Rewarded
from fettle.config.sandbox import SandboxSettings
from fettle.errors import ConfigError

WITH_TOOLS = "Use the tools, then give the final answer as <answer>...</answer>."

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Calculations(Frozen):
    """Arithmetic with numbers too long for the head; the calculator is at hand."""

    type: Literal["calculations"] = "calculations"
    digits: Annotated[int, Field(ge=1, le=40)] = 4
    """Digits of each number."""
    terms: Annotated[int, Field(ge=2, le=8)] = 2
    """Numbers in an expression."""
    operations: Annotated[str, Field(pattern=r"^[-+*]+$")] = "+-*"
    """What joins the numbers."""


class Lookups(Frozen):
    """Questions about made-up places, whose facts stand in documents; search is at hand."""

    type: Literal["lookups"] = "lookups"
    places: Annotated[int, Field(ge=10, le=20000)] = 300
    """Places in the corpus, a document each."""
    hops: Literal[1, 2] = 1
    """Documents that a question needs."""


class FileTasks(Frozen):
    """Numbers in files to be counted, added up and written down; a workspace of files is at hand."""

    type: Literal["files"] = "files"
    files: Annotated[int, Field(ge=1, le=9)] = 3
    """Files in the workspace at first."""
    lines: Annotated[int, Field(ge=1, le=200)] = 8
    """Numbers in each."""
    digits: Annotated[int, Field(ge=1, le=12)] = 3
    """Digits of each number."""


class Questions(Frozen):
    """Questions from a file: one JSON object a line, with ``prompt`` or ``messages``, and ``answer``."""

    type: Literal["questions"] = "questions"
    path: str
    """The file. A row may bring ``files``, an object of texts by name, for the workspace."""
    reward: str = "exact_match"
    """A reward by name, or ``package.module:function``, for what stands in <answer>...</answer>."""


class ProcessServer(Frozen):
    """An MCP server that is started here, and spoken to over its standard input and output."""

    type: Literal["process"] = "process"
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments."""
    environment: dict[Variable, str] = {}
    """Environment variables; of this process's own it gets PATH, HOME and a few like them."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """Time for its start, and for one answer."""
    shared: bool = False
    """Whether one server serves all episodes: only for servers that remember nothing between calls."""


class HTTPServer(Frozen):
    """An MCP server that is reached over streamable HTTP."""

    type: Literal["http"] = "http"
    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")]
    """Where it is (``http://127.0.0.1:8000/mcp``)."""
    token_variable: Variable | None = None
    """Environment variable that holds the bearer token which it asks for."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """Time to reach it, and for one answer."""
    shared: bool = False
    """Whether one session serves all episodes: only for servers that remember nothing between calls."""

    @model_validator(mode="after")
    def _no_secret_in_the_clear(self) -> "HTTPServer":
        parts = urlsplit(self.url)
        if self.token_variable is not None and parts.scheme == "http" and not loopback(parts.hostname or ""):
            raise ValueError(f"url is {self.url}, and would carry a token in the clear to another machine: use https")
        return self

    def token(self) -> str | None:
        """What ``token_variable`` holds; None where there is no such setting.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.token_variable is None:
            return None
        if not (found := os.environ.get(self.token_variable, "").strip()):
            raise ConfigError(f"the environment variable {self.token_variable} holds no token: put one there")
        return found


ToolTasks = Annotated[Calculations | Lookups | FileTasks | Questions, Field(discriminator="type")]
"""Tasks that are solved with tools, by their type."""

ToolServer = Annotated[ProcessServer | HTTPServer, Field(discriminator="type")]
"""A server of tools, by its type."""


class Tools(Rewarded):
    """Tasks whose answer is worked out by calling tools, one reply after another."""

    type: Literal["tools"] = "tools"
    tasks: ToolTasks = Calculations()
    """What is asked."""
    tools: tuple[str, ...] = ()
    """What may be called: calculator, python, search, files, or a function of your own as ``package.module:function``;
    empty for what the tasks need."""
    corpus: str | None = None
    """What search looks through: one JSON object a line, with ``text`` and perhaps ``title``; null for the documents
    of the tasks."""
    sandbox: SandboxSettings = SandboxSettings()
    """Where python runs."""
    servers: dict[str, ToolServer] = {}
    """MCP servers by a name of yours, whose tools may be called too. None is ever spoken to that is not named here."""
    call_cost: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """What each call takes from the reward; the right answer earns 1."""
    max_calls: Annotated[int, Field(ge=1)] = 8
    """Calls in one episode; one more, and it is cut short."""
    call_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long one call may take; beyond that its episode has failed."""
    result_characters: Annotated[int, Field(ge=16)] = 4000
    """Where what a tool says is cut."""
    system: str | None = WITH_TOOLS
    """System message before each question that brings none; null for none."""
    seed: int = 0
    """Seed of the tasks."""
    heldout: Annotated[int, Field(ge=1)] = 200
    """Tasks kept for evaluation; none of them, by content, is ever trained on."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training tasks, relative to other environments."""

    @model_validator(mode="after")
    def _calls_never_cost_an_answer(self) -> "Tools":
        if self.call_cost * self.max_calls >= 1:
            raise ValueError(
                f"max_calls {self.max_calls} at call_cost {self.call_cost} cost all that a right answer earns: "
                "lower one of them, until their product is below 1"
            )
        return self

    @model_validator(mode="after")
    def _search_has_documents(self) -> "Tools":
        if "search" in self.tools and self.corpus is None and not isinstance(self.tasks, Lookups):
            raise ValueError("search has nothing to look through: set corpus, or use tasks of type lookups")
        return self


class WorkedCalls(Frozen):
    """Calculations worked out with the calculator, some of them guessed without."""

    type: Literal["worked_calls"] = "worked_calls"
    tasks: Tools = Tools()
    """Where the calculations come from; its held-out tasks stay held out here too."""
    guesses: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the solutions that call nothing and give a wrong number."""
    size: Annotated[int, Field(ge=1)] = 20000
    """How many solutions to write."""
    seed: int = 0
    """Seed of the guesses."""

    @model_validator(mode="after")
    def _tasks_are_calculations(self) -> "WorkedCalls":
        if not isinstance(self.tasks.tasks, Calculations):
            raise ValueError("tasks.tasks is no calculation, and only those are worked out here: use calculations")
        if self.tasks.tools not in ((), ("calculator",)) or self.tasks.servers:
            raise ValueError(
                "tasks offers more than the calculator, which is all that is called here: leave out the rest"
            )
        if self.tasks.weight != 1 or self.tasks.rewards:
            raise ValueError("tasks.weight and tasks.rewards are of no use where tasks are only shown: leave them out")
        return self
