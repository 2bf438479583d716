"""Killed with SIGKILL in any step and resumed, a run ends with the bits of an undisturbed one."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("resume_driver.py")

RL = """
type: rl
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}%(lora)s}
engine: {threads: 1, sampling_threads: %(beside)s}
environments: [{type: arithmetic, digits: 1, heldout: 8, system: null}]
steps: 8
groups_per_step: 2
group_size: 4
minibatches: %(minibatches)d
max_staleness: %(staleness)d
sampling: {max_tokens: 8}
advantage: group_centered
overlong: {buffer: 0.9}
optimizer: {learning_rate: 1e-3}
evaluation: {every: 4, tasks: 4}
checkpoints: {every: 2}
"""

LORA = ", lora: {rank: 4, dropout: 0.1}"

CRITIC = """
type: rl
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
environments: [{type: arithmetic, digits: 1, heldout: 8, system: null}]
steps: 6
groups_per_step: 2
group_size: 2
preset: conservative_ppo
critic: {place: %(place)s, warmup_steps: %(warmup)d}
trust_region: %(region)s
loss: {kl: {estimator: k1, place: reward}}
kl_control: {target: 0.001, horizon: 50}
sampling: {max_tokens: 8}
overlong: {buffer: 0.9}
optimizer: {learning_rate: 1e-3}
evaluation: {every: 3, tasks: 4}
checkpoints: {every: 2}
"""

REPLAYED = """
type: rl
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
environments: [&sums {type: arithmetic, digits: 1, heldout: 8, system: null}]
steps: 6
groups_per_step: 2
group_size: 2
preset: off_policy
replay: {capacity: 6, groups: 2, max_age: 4}
loss: {kl: {coefficient: 0.1, estimator: k3}}
rehearsal: {data: {type: worked_sums, tasks: *sums, size: 50}, batch_size: 4}
planning: {phrases: [a]}
sampling: {max_tokens: 8}
overlong: {buffer: 0.9}
optimizer: {learning_rate: 1e-3}
evaluation: {every: 3, tasks: 4}
checkpoints: {every: 2}
"""

DEBATED = """
type: rl
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
environments: [{type: debate, evidence: 2, team: 2, heldout: 8}]
players:
  con-1: {type: own, optimizer: {learning_rate: 2e-3}}
  con-2: {type: past, every: 3}
steps: 6
groups_per_step: 2
group_size: 2
advantage: group_centered
sampling: {max_tokens: 6}
overlong: {buffer: 0.9}
optimizer: {learning_rate: 1e-3}
evaluation: {every: 3, tasks: 4}
checkpoints: {every: 2}
"""

SFT = """
type: sft
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}}
engine: {threads: 1}
data: {type: worked_sums, tasks: {type: arithmetic, digits: 1, heldout: 8, system: null}, size: 50}
steps: 12
batch_size: 8
optimizer: {learning_rate: 1e-3}
evaluation: {every: 5}
checkpoints: {every: 4}
"""

COMPARED = """
type: %(type)s
policy: {model: {type: tiny, hidden: 32, layers: 1, heads: 2}, lora: {rank: 4, dropout: 0.1}}
engine: {threads: 1}
data: {type: worked_pairs, tasks: {type: arithmetic, digits: 1, heldout: 8, system: null}, size: 50}
steps: 12
batch_size: 4
optimizer: {learning_rate: 1e-3}
evaluation: {every: 5}
checkpoints: {every: 3}
"""


Outcomes = Callable[[str, Path, int], list[dict]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """What came of the kills of a recipe's run; one process imports everything, and serves the whole module."""
    log = tmp_path_factory.mktemp("driver") / "log"
    with log.open("w") as complaints:
        command = [sys.executable, str(DRIVER)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints}
        process = subprocess.Popen(command, text=True, bufsize=1, **pipes)

    def found(recipe: str, scratch: Path, kills: int) -> list[dict]:
        path = scratch / "recipe.yaml"
        path.write_text(recipe)
        process.stdin.write(json.dumps({"recipe": str(path), "scratch": str(scratch), "kills": kills}) + "\n")
        answer = process.stdout.readline()
        assert answer, log.read_text()
        return json.loads(answer)

    with process:
        yield found
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and fork are POSIX")
@pytest.mark.parametrize(
    ("name", "recipe", "kills"),
    [
        ("on-policy, all weights", RL % {"lora": "", "minibatches": 1, "staleness": 0, "beside": "null"}, 1),
        ("off-policy, sampling beside", RL % {"lora": "", "minibatches": 1, "staleness": 2, "beside": 1}, 1),
        ("off-policy, adapters", RL % {"lora": LORA, "minibatches": 2, "staleness": 2, "beside": "null"}, 1),
        (
            "a critic of its own, undone steps",
            CRITIC % {"place": "model", "warmup": 1, "region": "{type: hard, limit: 0.03}"},
            1,
        ),
        (
            "a critic on the policy, a coefficient that follows",
            CRITIC % {"place": "head", "warmup": 0, "region": "{type: adaptive, target: 0.006}"},
            1,
        ),
        ("replayed groups, rehearsed demonstrations", REPLAYED, 1),
        ("games: the policy, its past, and a policy of a player's own", DEBATED, 1),
        ("supervised", SFT, 1),
        ("pairs", COMPARED % {"type": "preference"}, 1),
        ("a reward model", COMPARED % {"type": "reward_model"}, 1),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_killed_and_resumed_ends_with_the_same_bits(name, recipe, kills, outcomes, tmp_path):
    found = outcomes(recipe, tmp_path, kills)
    assert [outcome["same"] for outcome in found] == [True] * kills, found
    assert all(outcome["killed"] and outcome["resumed_at"] > 0 for outcome in found), found
