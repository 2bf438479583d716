"""Where the shipped recipes lie."""

from pathlib import Path

import fettle


def shipped(name: str) -> Path:
    """The path of a recipe such as ``demo.yaml``: inside an installed package, or in the checkout it runs from."""
    package = Path(fettle.__file__).parent
    installed = package / "recipes" / name
    return installed if installed.is_file() else package.parent.parent / "configs" / name
