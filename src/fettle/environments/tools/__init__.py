"""Tools that a policy may call, and the tasks that need them."""

from fettle.environments.tools.calculator import calculator
from fettle.environments.tools.corpus import Corpus, Document
from fettle.environments.tools.environment import ToolEnvironment
from fettle.environments.tools.suite import ToolSuite, suite
from fettle.environments.tools.tool import Tool, ToolMistake, tool, tools_of
from fettle.environments.tools.workspace import Workspace

__all__ = [
    "Corpus",
    "Document",
    "Tool",
    "ToolEnvironment",
    "ToolMistake",
    "ToolSuite",
    "Workspace",
    "calculator",
    "suite",
    "tool",
    "tools_of",
]
