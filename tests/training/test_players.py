"""Training of games: who learns from what, and whom a policy is measured against."""

import hashlib
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fettle.broker import Broker
from fettle.config import LocalEngine
from fettle.engine.local import LocalBackend
from fettle.errors import ConfigError
from fettle.tracking import RunFolder

from .conftest import small, trained
from .duels import Duels
from .games import Game, length

FAST = {"group_size": 8, "preset": "dr_grpo", "optimizer": {"learning_rate": 0.01}}


def weights(folder: Path) -> str:
    """A hash of saved weights."""
    (path,) = folder.glob("model*.safetensors")
    tensors = load_file(path)
    return hashlib.sha256(b"".join(tensors[key].tobytes() for key in sorted(tensors))).hexdigest()


async def test_self_play_wins_ever_more_often_against_the_frozen_start(tiny, tmp_path):
    run = small(tiny, steps=24, evaluation={"every": 24, "tasks": 4}, **FAST)
    memory = (await trained(run, tmp_path, [Duels()])).memory
    before, after = memory.column("heldout/win_rate")
    assert before == 0.5  # a policy that has learned nothing plays its own copy, each side once
    assert after > 0.8
    assert memory.column("heldout/tasks") == [8.0, 8.0]  # four tasks, from either side


async def test_a_win_of_one_player_is_a_loss_of_the_other(tiny, tmp_path):
    memory = (await trained(small(tiny), tmp_path, [Duels()])).memory
    for player in ("left", "right"):
        assert len(memory.column(f"player/{player}/win_rate")) == 6
    for left, right in zip(memory.column("player/left/win_rate"), memory.column("player/right/win_rate"), strict=True):
        assert left + right == pytest.approx(1.0)
    assert set(memory.column("reward/mean")) == {0.0}  # both sides are learned from


async def test_rewards_are_compared_within_a_player(tiny, tmp_path):
    """What one player earns throughout is no credit of its, whatever the other earns."""

    class Uneven(Duels):
        def settled(self, said):
            super().settled(said)
            return {"left": {"duel": 5.0}, "right": {"duel": -5.0}}

    memory = (await trained(small(tiny), tmp_path, [Uneven()])).memory
    assert set(memory.column("advantage/nonzero")) == {0.0}
    assert set(memory.column("rollout/uninformative_groups")) == {4.0}  # two tasks, two players


async def test_a_frozen_player_is_played_with_and_not_learned_from(tiny, tmp_path):
    run = small(tiny, steps=40, players={"right": {"type": "frozen"}}, evaluation={"every": 40, "tasks": 4}, **FAST)
    memory = (await trained(run, tmp_path, [Duels()])).memory
    assert memory.column("heldout/tasks") == [4.0, 4.0]  # the policy's side alone
    assert memory.column("reward/mean") == memory.column("player/left/reward")
    assert sum(memory.column("player/left/win_rate")[-5:]) / 5 > 0.8


async def test_the_parameters_of_a_frozen_player_have_no_gradient_and_stay_what_they_were(tiny, tmp_path):
    backend = LocalBackend(LocalEngine(threads=1), checkpoints=RunFolder.at(tmp_path).checkpoints)

    def digest() -> str:
        (model,) = backend._frozen.models
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.module.parameters())
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.module.parameters())).hexdigest()

    engine = Broker(backend)
    await engine.sampler(tiny)
    before = digest()
    run = small(tiny, players={"right": {"type": "frozen"}}, **FAST)
    moved = await trained(run, tmp_path, [Duels()], engine=engine)
    assert digest() == before
    assert weights(moved.folder.checkpoints / "step-000006") != weights(Path(tiny))


async def test_a_player_of_its_own_learns_beside_the_policy(tiny, tmp_path):
    run = small(tiny, players={"right": {"type": "own", "optimizer": {"learning_rate": 0.02}}}, **FAST)
    done = await trained(run, tmp_path, [Duels()])
    ends = [weights(done.folder.checkpoints / name) for name in ("step-000006", "step-000006.player-right")]
    assert len({weights(Path(tiny)), *ends}) == 3
    assert done.memory.column("player/right/learning_rate") == [0.02] * 6
    assert done.memory.column("player/right/version") == done.memory.column("policy/version")
    assert done.memory.column("reward/mean") == done.memory.column("player/left/reward")


async def test_the_past_is_the_policy_as_it_was(tiny, tmp_path):
    run = small(
        tiny, steps=5, players={"right": {"type": "past", "every": 2}}, checkpoints={"every": 2, "keep": 3}, **FAST
    )
    done = await trained(run, tmp_path, [Duels()])
    checkpoints = done.folder.checkpoints
    assert weights(checkpoints / "past-000004") == weights(checkpoints / "step-000004")
    assert not (checkpoints / "past-000002").exists()
    assert done.summary.steps == 5


async def test_games_and_other_tasks_are_mixed(tiny, tmp_path):
    two = [{"type": "arithmetic", "digits": 1, "heldout": 4}, {"type": "arithmetic", "digits": 2, "heldout": 4}]
    run = small(tiny, steps=8, environments=two)
    memory = (await trained(run, tmp_path, [Duels(), Game(length)])).memory
    assert {"heldout/reward/duel/left", "heldout/reward/duel/right", "heldout/reward/game"} <= set(memory.rows[0])
    assert {"reward/component/duel", "reward/component/game"} <= {name for row in memory.rows for name in row}


@pytest.mark.parametrize(
    ("players", "words"),
    [
        ({"rihgt": {"type": "frozen"}}, "players.rihgt names no player: they are left, right; did you mean right"),
        ({"left": {"type": "past"}, "right": {"type": "own"}}, "names every player of duel"),
    ],
)
async def test_names_that_fit_no_game_are_refused(tiny, tmp_path, players, words):
    with pytest.raises(ConfigError, match=words):
        await trained(small(tiny, players=players), tmp_path, [Duels()])


async def test_players_without_a_game_are_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="there is no game among the environments"):
        await trained(small(tiny, players={"right": {"type": "frozen"}}), tmp_path, [Game(length)])


async def test_a_game_that_breaks_is_a_failure_of_each_side(tiny, tmp_path):
    class Brittle(Duels):
        def settled(self, said):
            if len(self.heard) % 3 == 2:
                self.heard.append({})
                raise RuntimeError("the referee left")
            return super().settled(said)

    memory = (await trained(small(tiny, group_size=6), tmp_path, [Brittle()])).memory
    assert all(share == pytest.approx(1 / 3, abs=0.1) for share in memory.column("rollout/failed"))


class Killed(BaseException):
    """Nothing catches it: as far as the run can tell, the process ends here."""


async def test_a_run_of_games_that_died_goes_on_to_the_same_bits(tiny, tmp_path):
    class Deadly(Duels):
        def settled(self, said):
            if len(self.heard) == self.dies_after:
                raise Killed
            return super().settled(said)

    players = {"right": {"type": "own", "optimizer": {"learning_rate": 0.02}}, "third": {"type": "past", "every": 3}}
    checkpoints = {"every": 2}
    run = small(tiny, steps=8, players=players, checkpoints=checkpoints, evaluation={"every": 8, "tasks": 4}, **FAST)

    async def played(name: str, dies_after: int):
        suite = Deadly(("left", "right", "third"))
        suite.dies_after = dies_after
        return await trained(run, tmp_path / name, [suite])

    straight = await played("straight", -1)
    with pytest.raises((Killed, BaseExceptionGroup)):
        await played("killed", 92)  # in the sixth step, after the checkpoint of the fourth and the copy of the third
    assert (tmp_path / "killed" / "checkpoints" / "past-000003").is_dir()
    resumed = await played("killed", -1)
    for name in ("step-000008", "step-000008.player-right", "past-000006"):
        assert weights(resumed.folder.checkpoints / name) == weights(straight.folder.checkpoints / name)
    assert resumed.memory.column("player/third/win_rate") == straight.memory.column("player/third/win_rate")[-4:]
