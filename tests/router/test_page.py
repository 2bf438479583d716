"""What ``docs/router.md`` shows runs as it stands there, in its order; only shorter."""

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from fettle.cli import main
from fettle.router.modes import MODES
from tests.router.routing_server import server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "router.md").read_text(encoding="utf-8")
SHORT = {
    "trainer": {"updates": 1, "episode_length": 2, "parallel": 64},
    "ppo": {"rollout_length": 256, "mini_batch_size": 256},
}


def steps():
    """A command as its words, a program as its text."""
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python":
            yield block
        else:
            yield from (shlex.split(line, comments=True) for line in block.splitlines())


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with the shipped files, in which the long run is a short one, and a log of decisions."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs/policy", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    long = tmp_path / "configs" / "policy" / "router-tasks.yaml"
    tree = yaml.safe_load(long.read_text())
    for part, settings in SHORT.items():
        tree["rllm"][part] |= settings
    long.write_text(yaml.safe_dump(tree))
    line = {"observation": [0.5] * 7, "propensity": 0.2, "reward": 1.0}
    lines = [json.dumps({**line, "mode": mode}) for mode in MODES]
    (tmp_path / "decisions.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_every_step_of_the_page_does_what_it_says(there, monkeypatch, capsys):
    off = re.search(r"```text\n(fettle: nothing was trained: .*?)```", PAGE, re.DOTALL)[1]
    found = list(steps())
    assert len(found) == 9
    with server() as running:
        for step in found:
            if isinstance(step, str):
                exec(step, {})
                assert capsys.readouterr().out.endswith("(4, 5)\n")
            elif step[:3] == ["fettle", "environments", "serve"]:
                assert step[3:] == ["routing", "--port", "8080"]  # as this one is, but for the port
            else:
                served = running.settings if "rllm.rollout_service.enabled=true" in step else ()
                said = ended(step, served, monkeypatch, capsys)
                shipped = "configs/policy/rllm.yaml" in step
                assert said == ((3, off) if shipped else (0, "")), step
                # What is trained anew has not been evaluated.
                assert (there / "outputs/router-tasks/evaluation.png").is_file() == (step[2:3] == ["evaluate"]), step
    assert (there / "outputs/router-tasks/round-0001/evaluation.json").is_file()


def ended(step, more, monkeypatch, capsys):
    """The exit code of a command, and what it complained of."""
    script = step[0] == "python"
    monkeypatch.setattr("sys.argv", step[1:] if script else [*step, *more])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(step[1], run_name="__main__") if script else main()
    return end.value.code, capsys.readouterr().err
