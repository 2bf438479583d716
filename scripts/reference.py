"""The reference pages, written from the code: settings, verbs, errors.

``python scripts/reference.py`` writes them; with ``--check`` it only says whether they are up to date.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

import fettle.config
from fettle import errors
from fettle.cli import app
from fettle.config import PRESETS, Frozen, Pipeline, PreferenceRun, RewardModelRun, RLRun, RunConfig, SFTRun

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
WRITTEN_BY = "<!-- Written by scripts/reference.py from the code: change it there. -->"

Schema = Mapping[str, Any]


# --- settings -------------------------------------------------------------------------------------


def config_page() -> str:
    """Every class of settings that a recipe can hold, in the order a recipe meets them, then the others."""
    schema = TypeAdapter(RunConfig).json_schema()
    classes: dict[str, Schema] = {}
    for run in (RLRun, SFTRun, RewardModelRun, PreferenceRun, Pipeline):
        _meet(run.__name__, schema["$defs"], classes)
    in_recipes = [_class_section(name, body) for name, body in classes.items()]
    others = [
        _class_section(cls.__name__, cls.model_json_schema()) for cls in _settings() if cls.__name__ not in classes
    ]
    return _page(
        "Settings",
        "A recipe is one of [RLRun](#rlrun), [SFTRun](#sftrun), [RewardModelRun](#rewardmodelrun), "
        "[PreferenceRun](#preferencerun) and [Pipeline](#pipeline), chosen by its `type`. "
        "The same names are the keys of the YAML file, the dotted overrides (`policy.lora.rank=16`) and the arguments "
        "in Python. A setting that holds settings of its own links to them.",
        *in_recipes,
        _preset_section(),
        "Recipes do not hold the classes below; Python does.",
        *others,
    )


def _settings() -> Iterator[type[Frozen]]:
    public = (getattr(fettle.config, name) for name in fettle.config.__all__)
    return (item for item in public if isinstance(item, type) and issubclass(item, Frozen) and item is not Frozen)


def _meet(name: str, definitions: Mapping[str, Schema], met: dict[str, Schema]) -> None:
    """Add ``name`` and, after it, what its fields hold."""
    if name in met:
        return
    met[name] = definitions[name]
    for held in _references(definitions[name]):
        _meet(held, definitions, met)


def _references(node: Any) -> Iterator[str]:
    """The classes of settings that a piece of schema points to, in order."""
    if isinstance(node, Mapping):
        if hasattr(fettle.config, _target(node)):
            yield _target(node)
        for key, value in node.items():
            if key != "discriminator":
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _target(node: Schema) -> str:
    return str(node.get("$ref", "")).rpartition("/")[2]


def _class_section(name: str, body: Schema) -> str:
    fields = dict(body.get("properties", {}))
    kind = fields.pop("type", {}).get("const")
    lines = [f"## {name}", "", _markdown(body["description"])]
    if kind:
        lines += ["", f"`type: {kind}`"]
    if fields:
        lines += ["", "| Setting | Type | Default | Meaning |", "|---|---|---|---|"]
        lines += [
            _field_row(name, field, form, required=field in body.get("required", ())) for field, form in fields.items()
        ]
    return "\n".join(lines)


def _field_row(owner: str, field: str, form: Schema, *, required: bool) -> str:
    if required:
        default = "required"
    elif owner == RLRun.__name__ and any(field in row for row in PRESETS.values()):
        default = "[by preset](#presets)"
    else:
        default = _default(form["default"])
    meaning = form.get("description") or _held_meaning(form)
    return f"| `{field}` | {_type(form)} | {default} | {_markdown(meaning)} |"


def _held_meaning(form: Schema) -> str:
    """A field that says the same as the class it holds leaves the saying to it."""
    name = next(_references(form))
    return str(getattr(fettle.config, name).__doc__)


def _type(form: Schema) -> str:
    """A piece of JSON Schema as people write types."""
    if "$ref" in form:
        return f"[{_target(form)}](#{_target(form).lower()})"
    for union in ("oneOf", "anyOf"):
        if union in form:
            return " or ".join(_type(each) for each in form[union])
    if "enum" in form:
        return ", ".join(f"`{value}`" for value in form["enum"])
    if form.get("type") == "array":
        at_least = ", at least one" if form.get("minItems") else ""
        return f"list of {_type(form['items'])}{at_least}"
    words = {"object": "mapping", "boolean": "true or false"}
    return " ".join([words.get(form["type"], str(form["type"])), " and ".join(_bounds(form))]).strip()


def _bounds(form: Schema) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    return (f"{sign} {form[key]}" for key, sign in signs.items() if key in form)


def _default(value: Any) -> str:
    """A default as YAML would hold it; of a nested class, the type that is chosen."""
    if isinstance(value, Mapping) and value:
        return f"`{value['type']}`" if "type" in value else "its own"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _preset_section() -> str:
    lines = [
        "## Presets",
        "",
        "What each `preset` fills in where a recipe is silent.",
        "",
        "| Preset | Settings |",
        "|---|---|",
    ]
    for name, row in PRESETS.items():
        settings = "<br>".join(f"`{key}: {json.dumps(value)}`" for key, value in _dotted(row))
        lines.append(f"| `{name}` | {settings} |")
    return "\n".join(lines)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# --- verbs and errors -----------------------------------------------------------------------------


def cli_page() -> str:
    """What each verb's ``--help`` says."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="fettle"), name="fettle", title="Verbs")
    title, _, body = text.partition("\n")
    return _page(title.removeprefix("# "), body.strip())


def errors_page() -> str:
    """Every error and its code."""
    rows = [
        f"| `{cls.__name__}` | `{cls.code}` | {_markdown(str(cls.__doc__))} |"
        for cls in errors.FettleError.__subclasses__()
    ]
    return _page(
        "Errors",
        "Everything that goes wrong on purpose is a `FettleError`. Its message is one sentence that names the place "
        "and the mend; its code never changes, so a client can act on it.",
        "\n".join(["| Error | Code | Meaning |", "|---|---|---|", *rows]),
    )


# --- pages ----------------------------------------------------------------------------------------


PAGES: Mapping[str, Callable[[], str]] = {"config.md": config_page, "cli.md": cli_page, "errors.md": errors_page}


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join([WRITTEN_BY, f"# {title}", *blocks]) + "\n"


def _markdown(docstring: str) -> str:
    """A docstring as one line of a table: single back-ticks, and angle brackets that stay visible."""
    parts = " ".join(docstring.split()).replace("``", "`").replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace(">", "&gt;") for part in parts[::2]]
    return "`".join(parts)


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if check and not (path.is_file() and path.read_text(encoding="utf-8") == text):
            stale.append(name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"docs/reference/{name} is out of date: ./run python scripts/reference.py mends it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
