"""Runs the conformance tests of the Tinker wire protocol, and writes what came of each into docs/tinker.md.

About a minute: python scripts/tinker_conformance.py
"""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tinker.md"
TESTS = "tests/service/faces/tinker"
BEGIN, END = "<!-- conformance -->\n", "<!-- /conformance -->\n"
NAME = re.compile(r"test_(\d\d)_(\w+)")


def ran(folder: Path) -> dict[tuple[int, str], str]:
    """What came of each test that is named by a line: ``passed``, or what else."""
    report = folder / "report.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-q", TESTS, f"--junitxml={report}"], cwd=ROOT, check=False)
    found: dict[tuple[int, str], str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = NAME.match(case.get("name", ""))
        if name is None:
            continue
        line = int(name[1]), name[2].replace("_", " ")
        outcomes = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[line] = outcomes[0] if outcomes else found.get(line, "passed")
    return found


def table(found: dict[tuple[int, str], str]) -> str:
    """A row for each line of the list."""
    rows = defaultdict(list)
    for (number, claim), outcome in sorted(found.items()):
        rows[number].append(claim if outcome == "passed" else f"{claim} (**{outcome}**)")
    lines = [f"| {number} | {'; '.join(claims)} |" for number, claims in rows.items()]
    return "\n".join(["| line | passes |", "|---|---|", *lines]) + "\n"


def main() -> None:
    """Run, and write."""
    with tempfile.TemporaryDirectory() as folder:
        found = ran(Path(folder))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + table(found) + "\n" + END + rest.partition(END)[2], encoding="utf-8")
    failing = sorted(line for line, outcome in found.items() if outcome != "passed")
    print(f"{len({number for number, _ in found})} lines, {len(found)} claims, {len(failing)} not met: {failing}")


if __name__ == "__main__":
    main()
