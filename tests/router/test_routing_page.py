"""The commands and the program of ``docs/routing.md`` run as they stand there, in their order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from fettle.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "routing.md"


SHORT = ("rllm.trainer.updates=1", "rllm.ppo.rollout_length=64", "rllm.ppo.mini_batch_size=64")


def steps():
    """A command as its words, a program as its text."""
    found = re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for language, block in found:
        if language == "python":
            yield block
        else:
            for line in block.replace("\\\n", " ").splitlines():
                yield shlex.split(line, comments=True)


def test_every_step_of_the_page_does_what_it_says(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PAGE.parents[1] / "configs" / "policy", tmp_path / "configs" / "policy")
    left = iter((("better", "outputs/early"), ("best", "outputs/router-tasks")))
    assert len(list(steps())) == 12
    for step in steps():
        if isinstance(step, str):
            exec(step, {})
            continue
        trains = step[:3] == ["fettle", "router", "train"]
        monkeypatch.setattr("sys.argv", [*step, *SHORT] if trains else step)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0, (step, capsys.readouterr().err)
        if trains:  # in earnest it takes half a minute
            name, folder = next(left)
            assert (tmp_path / folder / "policy_state.npz").is_file()
            shutil.rmtree(folder)
            shutil.copytree(runs / name, folder)
    out = capsys.readouterr().out
    assert "version 2 is in use in outputs/router-registry; before: version 1\nit earns +0." in out
    assert "200 decisions, worth " in out
    assert "'alerts': 0, 'lost': 0}" in out
    assert "not swarm: it costs at least 0.15 USD, over preferences.budget_usd, 0.12" in out
