"""All rows: ``python -m benchmarks`` measures them one after another and writes ``docs/benchmarks.md``.

Those of the service have a page of their own, ``docs/service-benchmarks.md``; the long ones of them are measured only
where ``--only`` names them.

Records are kept in ``runs/benchmarks``, one a row, so that ``--page`` can write the page anew and ``--only`` can
measure some rows again; those of a GPU, of another precision, or of a quick look are kept apart.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import service_page
from benchmarks.harness import CACHE, ROOT, Settings
from benchmarks.page import ROWS, page, records

PAGE, SERVICE_PAGE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "service-benchmarks.md"
USUAL = ROWS + service_page.SHORT
ALL = ROWS + service_page.ROWS


def main() -> None:
    """Measure what is asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ALL, default=USUAL, metavar="ROW", help=", ".join(ALL))
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the kept records")
    parser.add_argument("--to", type=Path, default=PAGE, help="where the page is written")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that all rows work")
    asked = parser.parse_args()
    settings = Settings(asked.device, asked.dtype, asked.threads, asked.quick)
    kept = folder(settings)
    kept.mkdir(parents=True, exist_ok=True)
    failed = [] if asked.page else [name for name in asked.only if not measured(name, kept, settings)]
    asked.to.write_text(page(records(kept)), encoding="utf-8")
    print(f"wrote {asked.to}")
    if asked.to == PAGE:  # the service is measured on this machine's processor, as usual or not at all
        SERVICE_PAGE.write_text(service_page.page(records(kept, service_page.ROWS)), encoding="utf-8")
        print(f"wrote {SERVICE_PAGE}")
    if asked.only is USUAL and not asked.page:
        print(f"left out, since they run long: {', '.join(service_page.LONG)}; --only measures them")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def folder(settings: Settings) -> Path:
    """Where the records of such a measurement are kept."""
    usual = Settings()
    apart = [said for said in (settings.device, settings.dtype) if said not in (usual.device, usual.dtype)]
    return CACHE / "-".join(["records", *apart, *(["quick"] if settings.quick else [])])


def measured(name: str, kept: Path, settings: Settings) -> bool:
    """Run one row in a process of its own, keep its record, and say in a line what it found."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--threads", str(settings.threads)]
    command += ["--device", settings.device, "--dtype", settings.dtype, *(["--quick"] if settings.quick else [])]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = (result.stdout.splitlines() or [""])[-1]
    if not line.startswith("{"):  # a row that is not met may end with 1, and has a record all the same
        print(f"{name:20} failed ({result.returncode})", flush=True)
        return False
    (kept / f"{name}.json").write_text(line + "\n")
    found = json.loads(line)
    verdict = found["not_applicable"] or ("met" if found["met"] else "not met")
    print(
        f"{name:20} {found['ratio']:8.3g} (target {found['target']:g})  {verdict}  {found['seconds']:.0f} s", flush=True
    )
    return True


if __name__ == "__main__":
    main()
