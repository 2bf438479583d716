"""``fettle environments new``: a package of one's own, which is installed and then found by its name."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fettle.errors import ConfigError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new(
    name: Annotated[str, typer.Argument(help="What it is called: small letters, digits, - and _.")],
    folder: Annotated[Path | None, typer.Option(help="Where to write it; left out, a folder of its name.")] = None,
) -> None:
    """Write a package with an environment of one's own, and its test."""
    from fettle.cli import environment_template as template
    from fettle.cli.worlds import types_of_worlds

    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a package: use small letters, digits, - and _, as in my-world")
    module = name.replace("-", "_")
    if name in types_of_worlds():
        raise ConfigError(f"{name} is a type of environments already: use another name")
    if find_spec(module) is not None:
        raise ConfigError(f"there is a module {module} already: use another name")
    place = Path(name) if folder is None else folder
    if place.exists():
        raise ConfigError(f"{place} is there already: name another place with --folder")
    place.mkdir(parents=True)
    texts = {
        "pyproject.toml": template.PYPROJECT,
        f"{module}.py": template.MODULE,
        f"test_{module}.py": template.TEST,
    }
    for file, text in texts.items():
        filled = text.format(name=name, module=module, distribution=name.replace("_", "-"))
        (place / file).write_text(filled, encoding="utf-8")
    print(f"{place}: {', '.join(texts)}")
    print(f"install it:  pip install -e {place}")
    print(f"test it:     python -m pytest {place}")
    print(f"play it:     fettle environments check {name}")
