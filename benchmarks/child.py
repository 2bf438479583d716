"""One side of a row in a process of its own: ``python -m benchmarks.child MODULE:FUNCTION SETTINGS ARGUMENTS``."""

import importlib
import json
import sys

from benchmarks.harness import MARK, Settings, prepare


def main(function: str, settings: str, arguments: str) -> None:
    """Call the function, and answer with what it returns."""
    module, _, name = function.partition(":")
    asked = Settings(**json.loads(settings))
    prepare(asked.threads)
    answer = getattr(importlib.import_module(module), name)(asked, **json.loads(arguments))
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
