"""Nothing runs, writes or connects until it is switched on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fettle.config import load_as
from fettle.config.router import RouterConfig, switched_off
from fettle.errors import ConfigError
from fettle.router.training import train

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "configs" / "policy" / "rllm.yaml"

WATCHED = """
import json, os, runpy, sys
done = []
def hook(event, args):
    written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if written or event.split(".")[0] in ("socket", "subprocess", "_thread") and event != "socket.gethostname":
        done.append([event, str(args[:2])])
    if event in ("os.mkdir", "os.rename", "os.fork", "os.exec", "os.posix_spawn", "os.system"):
        done.append([event, str(args[:2])])
sys.addaudithook(hook)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "done": done, "threads": len(os.listdir("/proc/self/task"))}))
"""


def watched(config: Path, *arguments: str) -> tuple[dict, str]:
    """What a run of the documented script does, as its own interpreter sees it; and what it complains of."""
    script = ROOT / "scripts" / "run_router_ppo.py"
    command = [sys.executable, "-B", "-c", WATCHED, str(script), "--config", str(config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=config.parent)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_shipped_file_is_every_default_and_every_gate_is_shut():
    tree = yaml.safe_load(SHIPPED.read_text())
    assert tree == json.loads(RouterConfig().model_dump_json())
    gates = dict(gates_of(tree["rllm"], "rllm"))
    assert len(gates) == 12
    assert set(gates.values()) == {False}


def gates_of(tree, place):
    for name, value in tree.items():
        if name == "enabled" and place != "rllm.breakers":  # which stops runs, and begins nothing
            yield f"{place}.{name}", value
        elif isinstance(value, dict):
            yield from gates_of(value, f"{place}.{name}")


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_on_the_shipped_file_the_documented_command_does_nothing_and_says_why(tmp_path):
    config = tmp_path / "rllm.yaml"
    config.write_text(SHIPPED.read_text())
    seen, complaint = watched(config, "--updates", "8", "--seed", "42")
    assert seen == {"code": 3, "done": [], "threads": 1}
    assert "rllm.enabled and rllm.trainer.enabled are false" in complaint
    assert "rllm.enabled=true rllm.trainer.enabled=true" in complaint
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("shut", ["rllm.enabled", "rllm.trainer.enabled"])
def test_whatever_else_is_switched_on_training_takes_both_switches(tmp_path, shut):
    config = tmp_path / "rllm.yaml"
    config.write_text(SHIPPED.read_text())
    gates = dict(gates_of(yaml.safe_load(SHIPPED.read_text())["rllm"], "rllm"))
    seen, complaint = watched(config, *(f"{gate}=true" for gate in gates if gate != shut))
    assert seen == {"code": 3, "done": [], "threads": 1}
    assert f"{shut} is false" in complaint
    assert list(tmp_path.iterdir()) == [config]


def test_training_with_all_else_off_writes_nothing_and_asks_nobody(tmp_path):
    config = tmp_path / "rllm.yaml"
    config.write_text(SHIPPED.read_text())
    seen, complaint = watched(config, "rllm.enabled=true", "rllm.trainer.enabled=true", "--updates", "1")
    assert (seen["code"], complaint) == (0, "")
    assert [each for each in seen["done"] if each[0].startswith("socket.")] == []
    assert [each for each in seen["done"] if each[0] == "open" and str(tmp_path) in each[1]] == []
    assert list(tmp_path.iterdir()) == [config]


def test_the_gate_is_in_the_library_too(small):
    with pytest.raises(ConfigError, match=r"switched off by rllm\.trainer\.enabled"):
        train(small("rllm.trainer.enabled=false"))


def test_each_switch_is_named():
    assert switched_off(RouterConfig()) == ("rllm.enabled", "rllm.trainer.enabled")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("rllm.ppo.mini_batch_size=65", "mini_batch_size is 65, more than rollout_length, which is 64: lower it"),
        ("rllm.reward_weights.latency=-1", "should be greater than or equal to 0"),
        ("rllm.rward_weights.latency=1", r"unknown key 'rllm\.rward_weights'; did you mean 'rllm\.reward_weights'\?"),
        ("rllm.trainer.backend=tlrx", "is none of trlx, ppo"),
        ("rllm.ppo.gamma=high", "'rllm.ppo.gamma'"),
        ("rllm.simulator.type=replay", "does not say what the modes that were not taken would have earned: train in"),
        ("rllm.enabled=yes", "takes true or false"),
        ("rllm.ppo.rollout_length=97", "which no number from 2 to trainer.parallel, 8, divides, so that one episode"),
    ],
)
def test_a_wrong_setting_is_one_sentence(small, override, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        small(override)
    assert "\n" not in caught.value.message


def test_yaml_that_is_no_mapping_is_one_sentence(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- rllm\n")
    with pytest.raises(ConfigError, match="is a mapping of settings"):
        load_as(RouterConfig, path)
