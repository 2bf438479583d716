"""What ``docs/compat.md`` shows runs as it stands there."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"


def test_the_example_of_the_page_runs(model, tmp_path, monkeypatch, capsys):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("path/to/a/model", model), {})
    said = [float(number) for number in capsys.readouterr().out.split()]
    assert len(said) == 3
    assert said[-1] > 0  # the gradient's norm
