"""A real server of tools, made with the MCP package: run over standard input and output, or over HTTP on a port."""

import os
import sys
import time
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from pydantic import Field

server = MCPServer("test")
kept: list[str] = []


@server.tool()
def add(a: Annotated[int, Field(ge=0)], b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool()
def remember(word: str) -> str:
    """Keeps a word, and tells all that were kept."""
    kept.append(word)
    return " ".join(kept)


@server.tool()
def refuse() -> str:
    """Refuses."""
    raise ValueError("not today")


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def sleep(seconds: float) -> str:
    """Sleeps."""
    time.sleep(seconds)
    return "awake"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
