"""What ``docs/router.md`` shows runs as it stands there."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "router.md"


def test_the_example_of_the_page_runs(capsys):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.endswith("(4, 5)\n")
