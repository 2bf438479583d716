"""Tools of MCP servers: those that a recipe names, started or reached for an episode, and given back with it."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TextIO, TypeVar

import httpx2
import jsonschema  # type: ignore[import-untyped]
import mcp_types
from jsonschema.protocols import Validator  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from referencing import Registry

from fettle.config.tools import HTTPServer, ProcessServer, ToolServer
from fettle.environments.tools.tool import Arguments, Tool, ToolMistake
from fettle.errors import EnvironmentFault
from fettle.types import ToolSpec

Answer = TypeVar("Answer")
CLOSING_SECONDS = 10.0
MOST_PAGES = 100
QUOTED = 300


class Server:
    """One server and the session with it.

    A connection must be closed by the task that opened it, and episodes are played by many: so a task of its own holds
    it, from the first question to ``close``.
    """

    broken: bool = False
    """Whether it failed: nothing more is to be expected of it."""

    def __init__(self, name: str, config: ToolServer) -> None:
        self._name, self._config = name, config
        self._ready: asyncio.Future[Client] | None = None
        self._over = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None

    async def tools(self) -> list[Tool]:
        """What it offers, described in its own words.

        Raises:
            EnvironmentFault: it cannot be reached, or offers what is no tool.
        """
        found: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            client = await self._client()
            page = await self._answered(client.list_tools(cursor=cursor), "the list of its tools")
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        return [self._tool(offered) for offered in found]

    async def close(self) -> None:
        """End the session, and the process if there is one; may be called more than once."""
        holder, self._holder = self._holder, None
        if holder is None or self._ready is None:
            return
        self._over.set()
        if not self._ready.done():
            holder.cancel()
        done, _ = await asyncio.wait([holder], timeout=CLOSING_SECONDS)
        if not done:
            holder.cancel()
            await asyncio.wait([holder], timeout=CLOSING_SECONDS)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # it was told where it was waited for

    def _tool(self, offered: mcp_types.Tool) -> Tool:
        schema = offered.input_schema
        kind = validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise self._fault(
                f"describes the arguments of {offered.name} by no JSON schema: {error.message}"
            ) from error
        spec = ToolSpec(offered.name, offered.description or "", json.dumps(schema, ensure_ascii=False))
        # An empty registry, since whatever a schema refers to would else be fetched from where it says.
        return Tool(spec, partial(self._called, offered.name, kind(schema, registry=Registry())))

    async def _called(self, name: str, schema: Validator, arguments: Arguments) -> str:
        wrong = jsonschema.exceptions.best_match(schema.iter_errors(dict(arguments)))
        if wrong is not None:
            raise ToolMistake(f"{'.'.join(map(str, wrong.path)) or 'the arguments'}: {wrong.message[:QUOTED]}")
        client = await self._client()
        try:
            result = await self._answered(client.call_tool(name, dict(arguments)), f"the answer of {name}")
        except EnvironmentFault as fault:
            if _is_mistake(fault.__cause__):
                raise ToolMistake(str(fault.__cause__)[:QUOTED]) from fault
            raise
        text = "\n".join(_text(block) for block in result.content)
        if result.is_error:
            raise ToolMistake(text.strip().rstrip(".") or f"{name} failed")
        return text

    async def _client(self) -> Client:
        """The session, opened when it is first needed."""
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._holder = asyncio.create_task(self._held(self._ready), name=f"fettle-mcp-{self._name}")
        return await self._answered(asyncio.shield(self._ready), "its greeting")

    async def _held(self, ready: "asyncio.Future[Client]") -> None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            try:
                async with AsyncExitStack() as stack:
                    client = await stack.enter_async_context(await self._connected(stack, said))
                    ready.set_result(client)
                    await self._over.wait()
            except Exception as error:  # noqa: BLE001  it is raised where the session is waited for
                if not ready.done():
                    ready.set_exception(self._fault(f"cannot be spoken to: {_first(error)}{_last_words(said)}"))

    async def _connected(self, stack: AsyncExitStack, said: TextIO) -> Client:
        config = self._config
        if isinstance(config, ProcessServer):
            program, *arguments = config.command
            started = StdioServerParameters(command=program, args=arguments, env=dict(config.environment))
            return Client(stdio_client(started, errlog=said), read_timeout_seconds=config.seconds)
        http = httpx2.AsyncClient(headers=_headers(config), timeout=httpx2.Timeout(config.seconds, read=None))
        await stack.enter_async_context(http)
        return Client(streamable_http_client(config.url, http_client=http), read_timeout_seconds=config.seconds)

    async def _answered(self, call: Awaitable[Answer], what: str) -> Answer:
        """What the server answers, in its time.

        Raises:
            EnvironmentFault: it did not, or broke.
        """
        time = asyncio.timeout(self._config.seconds)
        try:
            async with time:
                return await call
        except EnvironmentFault:
            self.broken = True
            raise
        except Exception as error:
            self.broken = not _is_mistake(error)
            if time.expired():
                raise self._fault(f"did not send {what} within {self._config.seconds:g} s") from error
            raise self._fault(f"broke off before {what}: {_first(error)}") from error

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(f"the MCP server {self._name} {what}")


def _is_mistake(error: BaseException | None) -> bool:
    """Whether a server says that it was asked wrongly, and not that it failed."""
    return isinstance(error, MCPError) and error.code == mcp_types.INVALID_PARAMS


def _headers(config: HTTPServer) -> Mapping[str, str]:
    token = config.token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _text(block: Any) -> str:
    return block.text if isinstance(block, mcp_types.TextContent) else f"[{block.type}]"


def _first(error: BaseException) -> str:
    """What went wrong, without the groups that it came in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _last_words(said: TextIO) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    return f" (it said: {lines[-1][:QUOTED]})" if lines else ""
