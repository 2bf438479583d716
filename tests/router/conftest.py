"""Small runs: a rollout of 64 decisions, learned from in moments; and routers that use what such runs left."""

import shutil
from pathlib import Path

import pytest

from fettle.cli import main
from fettle.config import load_as
from fettle.config.router import RouterConfig
from fettle.config.routing import PromotionGate, RoutingConfig
from fettle.router.artifacts import RunFolder
from fettle.router.evaluation import evaluate, write_evaluation
from fettle.router.policy import load_policy
from fettle.router.promotion import promote
from fettle.router.routing import Router
from fettle.router.training import train

SWITCHED_ON = ("rllm.enabled=true", "rllm.trainer.enabled=true")
SMALL = (
    *SWITCHED_ON,
    "rllm.ppo.rollout_length=64",
    "rllm.ppo.mini_batch_size=32",
    "rllm.ppo.learning_rate=0.01",
    "rllm.trainer.parallel=8",
    "rllm.trainer.episode_length=6",
    "rllm.trainer.updates=3",
)


@pytest.fixture
def small():
    """``small("rllm.ppo.gamma=0.5")``: the settings of a small run, with others laid over them."""

    def settings(*overrides: str) -> RouterConfig:
        return load_as(RouterConfig, None, [*SMALL, *overrides])

    return settings


LEARNING = (
    "rllm.ppo.rollout_length=1024",
    "rllm.ppo.mini_batch_size=256",
    "rllm.ppo.gamma=0.1",
    "rllm.ppo.gae_lambda=0",
    "rllm.ppo.learning_rate=0.03",
    "rllm.trainer.parallel=256",
    "rllm.trainer.target_kl=null",
)
"""With which something is learned in a second."""


@pytest.fixture
def fettle(monkeypatch, capsys, tmp_path):
    """``fettle("train", ...)``: how a verb of ``fettle router`` ends in an empty folder, and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fettle", "router", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of three policies, the first of which learned nothing worth the name, each with its evaluation."""
    base = tmp_path_factory.mktemp("runs")
    for name, updates, rate in (("first", 1, 1e-6), ("better", 2, 0.03), ("best", 60, 0.03)):
        folder = base / name
        own = (f"trainer.updates={updates}", f"ppo.learning_rate={rate}", f"experiment.output_dir={folder}")
        on = ("experiment.enabled=true", "trainer.episode_length=8", *own)
        config = load_as(RouterConfig, None, [*SWITCHED_ON, *LEARNING, *(f"rllm.{each}" for each in on)])
        train(config, RunFolder(config, None))
        write_evaluation(evaluate(load_policy(folder), seeds=4, episodes=128), folder)
    return base


PATIENT = {"time_limit_s": 60.0, "retry_s": 3600.0}
"""A busy machine is no failure."""


@pytest.fixture(scope="session")
def registries(runs, tmp_path_factory):
    """A registry whose second version is in use; it is not to be changed."""
    registry = tmp_path_factory.mktemp("registry") / "registry"
    for name in ("better", "best"):
        promote(runs / name, registry, who="me", gate=PromotionGate(seeds=4, episodes=128))
    return registry


@pytest.fixture
def registry(registries, tmp_path):
    """One that may be changed."""
    return Path(shutil.copytree(registries, tmp_path / "registry"))


@pytest.fixture
def router(registry):
    """``router(exposure="full")``: over the registry; closed at the end."""
    made = []

    def make(**settings):
        config = RoutingConfig(**{"registry": str(registry), "exposure": "full", **PATIENT, **settings})
        made.append(Router(config))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def held(registries):
    """A router for each exposure, and one that explores besides."""
    settings = {"registry": str(registries), "canary_share": 0.5, **PATIENT}
    routers = {
        exposure: Router(RoutingConfig(exposure=exposure, **settings))
        for exposure in ("fixed", "shadow", "canary", "full")
    }
    routers["exploring"] = Router(RoutingConfig(exposure="canary", exploration=0.3, **settings))
    yield routers
    for each in routers.values():
        each.close()
