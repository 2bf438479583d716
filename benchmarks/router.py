"""How fast routing decisions are simulated, on one core: ``python -m benchmarks.router [--json]``."""

import argparse
import json
import time

import numpy as np

from fettle.config.router import LegacySimulator, RouterRewardWeights, TasksSimulator
from fettle.router.modes import MODES
from fettle.router.simulators import reward, simulator_of

TARGET = 200_000
SIZES = (32, 256, 2048)


def decisions_per_second(config: LegacySimulator | TasksSimulator, count: int, *, seconds: float = 1.0) -> float:
    """Observed, decided at random, stepped and rewarded; by processor time."""
    simulator, weights, rng = simulator_of(config), RouterRewardWeights(), np.random.default_rng(0)
    state, made = simulator.start(count, rng), 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        simulator.observations(state)
        state, terms = simulator.step(state, rng.integers(0, len(MODES), count), rng)
        reward(terms, weights)
        made += count
    return made / (time.process_time() - start)


def main() -> None:
    """Measure, print, and say whether ``tasks`` reaches its target where many episodes are played at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    as_json = parser.parse_args().json
    found = {
        config.type: {count: round(decisions_per_second(config, count)) for count in SIZES}
        for config in (LegacySimulator(), TasksSimulator())
    }
    record = {"decisions_per_second": found, "target": TARGET, "met": found["tasks"][SIZES[-1]] >= TARGET}
    print(json.dumps(record) if as_json else json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
