"""The commands of ``docs/routing.md`` run as they stand there, in their order."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fettle.cli import main
from fettle.router.modes import MODES

PAGE = Path(__file__).parents[2] / "docs" / "routing.md"


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line]


def test_every_command_of_the_page_does_what_it_says(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, shown in (("better", "early"), ("best", "router-tasks")):
        shutil.copytree(runs / name, tmp_path / "outputs" / shown)
    line = {"observation": [0.5] * 7, "propensity": 0.2, "reward": 1.0}
    lines = "".join(json.dumps({**line, "mode": mode}) + "\n" for mode in MODES)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "router-outcomes.jsonl").write_text(lines * 4)
    assert len(commands()) == 9
    for command in commands():
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0, (command, capsys.readouterr().err)
    out = capsys.readouterr().out
    assert "version 2 is in use in outputs/router-registry; before: version 1\nit earns +0." in out
    assert "not swarm: it costs at least 0.15 USD, over preferences.budget_usd, 0.12" in out
