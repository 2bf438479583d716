"""All rows: ``python -m benchmarks`` measures them one after another and writes ``docs/benchmarks.md``.

Records are kept in ``runs/benchmarks``, one a row, so that ``--page`` can write the page anew and ``--only`` can
measure some rows again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import CACHE, ROOT
from benchmarks.page import ROWS, page, records

PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = CACHE / "records"


def main() -> None:
    """Measure what is asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the kept records")
    parser.add_argument("--to", type=Path, default=PAGE, help="where the page is written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that all rows work")
    asked = parser.parse_args()
    kept = KEPT.with_name("records-quick") if asked.quick else KEPT
    kept.mkdir(parents=True, exist_ok=True)
    failed = [] if asked.page else [name for name in asked.only if not measured(name, kept, asked.threads, asked.quick)]
    asked.to.write_text(page(records(kept)), encoding="utf-8")
    print(f"wrote {asked.to}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def measured(name: str, kept: Path, threads: int, quick: bool) -> bool:
    """Run one row in a process of its own, keep its record, and say in a line what it found."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--threads", str(threads)]
    result = subprocess.run([*command, *(["--quick"] if quick else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        print(f"{name:20} failed", flush=True)
        return False
    line = result.stdout.splitlines()[-1]
    (kept / f"{name}.json").write_text(line + "\n")
    found = json.loads(line)
    verdict = found["not_applicable"] or ("met" if found["met"] else "not met")
    print(
        f"{name:20} {found['ratio']:8.3g} (target {found['target']:g})  {verdict}  {found['seconds']:.0f} s", flush=True
    )
    return True


if __name__ == "__main__":
    main()
