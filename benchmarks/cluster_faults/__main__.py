"""Processes and machines that are killed in the midst of real runs, which go on.

    python -m benchmarks.cluster_faults --kills 50 --json faults.json
    python -m benchmarks.cluster_faults --what sampler --what node --kills 5
    python -m benchmarks.cluster_faults --page faults.json

Every run is compared with the same run in which nobody was killed: each operation and what it came to, each row of
metrics, and the bytes of all checkpoints. ``--json`` adds what was found to what the file says of other faults.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cluster_faults import drivers, machines, page, trials
from benchmarks.cluster_faults.trials import Found

PAGE = Path(__file__).parent.parent.parent / "docs" / "faults.md"

ROUNDING = 2e-6
"""How far metrics may be apart, where sums are added up in another order."""

WHAT: Mapping[str, tuple[Callable[[Path, int, random.Random], Found], int]] = {
    "ranks": (trials.of_ranks, 50),
    "sampler": (trials.of_samplers, 10),
    "environments": (trials.of_environments, 10),
    "driver": (drivers.of_drivers, 5),
    "node": (machines.of_nodes, 3),
    "fewer": (machines.of_nodes_without_room, 2),
    "drain": (machines.of_notices, 2),
    "preemption": (drivers.of_requests_to_end, 3),
}
"""What is killed, and how often where nobody says so."""


def main() -> None:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", action="append", choices=WHAT, help="all, where nothing is said")
    parser.add_argument("--kills", type=int, help="of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write what was found there, beside what it says already")
    parser.add_argument("--page", type=Path, metavar="JSON", help="write docs/faults.md from there, and kill nobody")
    asked = parser.parse_args()
    if asked.page is not None:
        PAGE.write_text(page.page(json.loads(asked.page.read_text())), encoding="utf-8")
        return
    logging.getLogger("fettle").setLevel(logging.ERROR)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    found: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json and asked.json.is_file() else {}
    for what in asked.what or WHAT:
        trial, usual = WHAT[what]
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
            started, before = time.perf_counter(), machine.load()
            row = trial(Path(folder), asked.kills or usual, random.Random(f"{asked.seed}/{what}")).told()
        found[what] = {
            **row,
            "took": round(time.perf_counter() - started),
            "load": [before, machine.load()],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.described(),
            "versions": machine.versions(),
        }
        if asked.json is not None:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({what: found[what] for what in asked.what or WHAT}, indent=1))
    sys.exit(any(_differs(found[what]) for what in asked.what or WHAT))


def _differs(row: Mapping[str, Any]) -> bool:
    """Whether a run did not come to its end as it should have."""
    bad = ("lost", "doubled", "answers_that_differ", "rows_that_differ", "weights_differ", "left_running")
    apart = row.get("largest_difference", 0) > ROUNDING
    return row["survived"] != row["runs"] or apart or any(row.get(name) for name in bad)


if __name__ == "__main__":
    main()
