"""No dead knobs here either: every setting of the routing policy is public, and somebody reads it."""

import ast
import inspect
from pathlib import Path

import pytest
import yaml

import fettle
from fettle import config as c
from fettle.config import Frozen, load_as, router, routing
from fettle.config.routing import RoutingConfig

SOURCE = Path(fettle.__file__).parent
SHIPPED = Path(__file__).parents[2] / "configs" / "policy" / "routing.yaml"

CONSUMERS = {
    c.RouterConfig: ("router/training",),
    c.RLLM: ("router/*", "cli/router*"),
    c.RolloutService: ("router/training", "router/remote", "router/worlds", "config/router"),
    c.RouterTrainer: ("router/training", "router/learning", "router/artifacts", "config/router"),
    c.RouterEvaluation: ("cli/router",),
    c.Autopilot: ("router/*", "cli/router*"),
    c.RouterPPO: ("router/training", "router/learning"),
    c.RouterRewardWeights: ("router/nouns",),
    c.RouterCheckpoints: ("router/artifacts",),
    c.Experiment: ("router/artifacts",),
    c.LogFile: ("router/logs", "cli/router", "router/observability"),
    c.MetricsExport: ("router/observability",),
    c.TracingExport: ("router/observability", "router/tracing"),
    c.RouterObservability: ("router/training", "cli/router", "router/observability"),
    c.LegacySimulator: ("router/legacy",),
    c.TasksSimulator: ("router/tasks",),
    c.LinearHeads: ("router/heads",),
    c.MLPHeads: ("router/heads",),
    c.RouterPlanning: ("router/learning",),
    c.CircuitBreakers: ("router/training",),
    c.PromotionGate: ("router/evidence",),
    c.CollaborationPreferences: ("router/routing", "router/teams"),
    c.RoutingLog: ("router/decisions",),
    c.RoutingConfig: ("router/routing", "router/loading", "router/guard"),
}
"""The modules (``*`` is any), below ``fettle``, that read the settings of a class between them."""


def read_in(modules: str) -> set[str]:
    """Names that modules read as an attribute, take as an argument, or spell out."""
    paths = SOURCE.glob(f"{modules}.py")
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return attributes | arguments | {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


def settings_of(module):
    own = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__]
    return [kind for kind in own if issubclass(kind, Frozen)]


@pytest.mark.parametrize("kind", [*settings_of(router), *settings_of(routing)], ids=lambda kind: kind.__name__)
def test_every_setting_is_public_and_somebody_reads_it(kind):
    assert getattr(c, kind.__name__, None) is kind
    known = set().union(*(read_in(module) for module in CONSUMERS[kind]))
    assert set(kind.model_fields) - known - {"type"} == set()


def test_the_shipped_file_of_a_router_is_every_default_and_loads_no_policy():
    tree = yaml.safe_load(SHIPPED.read_text())
    assert tree == RoutingConfig().model_dump(mode="json")
    assert tree["exposure"] == "fixed"
    assert tree["log"]["enabled"] is False
    assert load_as(RoutingConfig, SHIPPED) == RoutingConfig()
