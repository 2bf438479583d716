"""Ten lines of Python that train. Takes two minutes: python examples/train.py"""

import asyncio
from pathlib import Path

from fettle.cli import build
from fettle.config import load

if __name__ == "__main__":
    recipe = load("configs/demo-arithmetic.yaml", ["stages.1.preset=dr_grpo", "stages.1.reduction.type=fixed_length"])
    folder = build.new_folder(Path("runs"), recipe)
    for summary in asyncio.run(build.run(recipe, folder)):
        print(summary.folder, dict(summary.last))
