"""The page's table of conformance names every test there is, and each was met when it was written."""

import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
PAGE = Path(__file__).parents[4] / "docs" / "tinker.md"
ROW = re.compile(r"^\| (\d+) \| (.*) \|$", re.MULTILINE)
TEST = re.compile(r"^(?:async )?def test_(\d\d)_(\w+)", re.MULTILINE)


def test_the_page_lists_the_tests_that_there_are():
    tests = defaultdict(set)
    for file in HERE.glob("test_*.py"):
        for number, claim in TEST.findall(file.read_text(encoding="utf-8")):
            tests[int(number)].add(claim.replace("_", " "))
    rows = {int(number): set(claims.split("; ")) for number, claims in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    assert rows == tests
    assert set(tests) == set(range(1, 73))
