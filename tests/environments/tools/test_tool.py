"""Tools of functions and of objects: described by their types, checked against them."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from fettle.environments.tools import Tool, ToolMistake, Workspace, tool, tools_of
from fettle.environments.tools.tool import check_names
from fettle.errors import ConfigError
from fettle.types import ToolSpec


async def weather(
    city: Annotated[str, Field(description="Where")], days: int = 1, unit: Literal["C", "F"] = "C"
) -> str:
    """Tells the weather.

    Details that a model need not know.
    """
    return f"{city} {days} {unit}"


def test_a_function_is_described_by_its_types():
    spec = tool(weather).spec
    assert (spec.name, spec.description) == ("weather", "Tells the weather.")
    assert json.loads(spec.schema) == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer", "default": 1},
            "unit": {"enum": ["C", "F"], "type": "string", "default": "C"},
        },
        "required": ["city"],
    }


async def test_arguments_reach_the_function():
    assert await tool(weather).run({"city": "Bel", "unit": "F"}) == "Bel 1 F"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "city: field required"),
        ({"city": 3}, "city: input should be a valid string"),
        ({"city": "Bel", "days": "3"}, "days: input should be a valid integer"),
        ({"city": "Bel", "unit": "K"}, "unit: input should be 'C' or 'F'"),
        ({"city": "Bel", "wind": 1}, "wind: extra inputs are not permitted"),
    ],
)
async def test_wrong_arguments_are_told_in_a_sentence(arguments, why):
    with pytest.raises(ToolMistake, match=why):
        await tool(weather).run(arguments)


async def test_what_is_no_text_is_told_as_json():
    def pair(numbers: tuple[int, int]) -> dict[str, int]:
        """Adds."""
        return {"sum": sum(numbers)}

    assert await tool(pair).run({"numbers": [1, 2]}) == '{"sum": 3}'


def test_an_object_has_a_tool_for_each_public_method():
    assert [made.name for made in tools_of(Workspace())] == ["list_files", "read_file", "write_file"]


def untyped(number) -> str:
    """Says."""
    return str(number)


def undescribed(number: int) -> str:
    return str(number)


def many(*numbers: int) -> str:
    """Says."""
    return str(numbers)


def strange(file: "Missing") -> str:  # noqa: F821
    """Says."""
    return str(file)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (untyped, "a parameter number without a name and a type"),
        (undescribed, "has no docstring"),
        (many, "a parameter \\*numbers"),
        (strange, "JSON cannot hold"),
    ],
)
def test_a_function_that_is_no_tool_is_refused(function, why):
    with pytest.raises(ConfigError, match=why):
        tool(function)


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "<|im_end|>", "ümlaut"])
def test_names_are_plain(name):
    with pytest.raises(ConfigError, match="a tool is named"):
        Tool(ToolSpec(name, "Says.", "{}"), tool(weather).run)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two tools are called weather"):
        check_names([tool(weather), tool(weather)])
