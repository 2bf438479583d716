"""How well the routing policy learns, and in what time: ``python -m benchmarks.router_learning [--seeds 5]``.

Each seed of ``configs/policy/router-tasks.yaml`` is trained twice, without and with planning credit, and both policies
are held to the same held-out seeds. All of it is simulated.
"""

import argparse
import time
from dataclasses import dataclass

import torch

from fettle.cli.recipes import shipped
from fettle.config.load import load_as
from fettle.config.router import RouterConfig
from fettle.intervals import students_interval
from fettle.router.artifacts import described
from fettle.router.evaluation import Evaluation, evaluate
from fettle.router.policy import RouterPolicy
from fettle.router.training import train

MINUTES = 2
"""Of one core's time, in which a policy is to beat the best fixed mode and both bandits."""


@dataclass(frozen=True)
class Learned:
    """A policy on held-out seeds, and what it took to train it. It is ahead where not even the intervals overlap."""

    found: Evaluation
    wall: float
    processor: float

    @property
    def met(self) -> bool:
        ahead = all(margin.low > 0 and margin.apart for margin in self.found.margins.values())
        return ahead and self.processor < 60 * MINUTES


def learned(seed: int, *overrides: str) -> Learned:
    """One run of the file, in memory."""
    switches = ("rllm.enabled=true", "rllm.experiment.enabled=false", f"rllm.trainer.seed={seed}")
    config = load_as(RouterConfig, shipped("policy/router-tasks.yaml"), [*switches, *overrides])
    wall, processor = time.perf_counter(), time.process_time()
    trained = train(config)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    policy = RouterPolicy(trained.policy, described(config, config_path="", updates=trained.updates))
    return Learned(evaluate(policy, seeds=10, episodes=256), wall, processor)


def main() -> None:
    """Train, print two tables, and say what was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--alpha", type=float, default=0.2, help="of planning credit")
    given = parser.parse_args()
    torch.set_num_threads(1)
    without, credited = [], []
    print("simulated: every reward comes from a simulator\n")
    print("| seed | wall, s | processor, s | policy | best fixed mode | best bandit | beats all |\n|" + 7 * "---|")
    for seed in range(given.seeds):
        one = learned(seed)
        without.append(one)
        best = one.found.best_constant
        bandit = max((each for each in one.found.others if each.learned), key=lambda each: each.mean)
        rivals = " | ".join(
            f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in (one.found.policy, best, bandit)
        )
        print(
            f"| {seed} | {one.wall:.0f} | {one.processor:.0f} | {rivals} | {'yes' if one.met else 'no'} |", flush=True
        )
    print(f"\nwithin {MINUTES} minutes of a core: {sum(each.met for each in without)} of {given.seeds} seeds\n")
    print(f"| seed | without | planning credit of {given.alpha} | difference |\n|---|---|---|---|")
    for seed, before in enumerate(without):
        credited.append(learned(seed, "rllm.hicra.enabled=true", f"rllm.hicra.alpha={given.alpha}"))
        off, on = before.found.policy.mean, credited[-1].found.policy.mean
        print(f"| {seed} | {off:.4f} | {on:.4f} | {on - off:+.4f} |", flush=True)
    gains = [on.found.policy.mean - off.found.policy.mean for off, on in zip(without, credited, strict=True)]
    mean, low, high = students_interval(gains)
    print(f"\ndifference over {len(gains)} seeds: {mean:+.4f}, 95 % [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
