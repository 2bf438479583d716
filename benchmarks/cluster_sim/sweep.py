"""Designs beside each other, from one GPU to 1 024: how long a step takes, what holds it up, where more is no use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from benchmarks.cluster_sim.costs import PARTS, Costs
from benchmarks.cluster_sim.episodes import Work
from benchmarks.cluster_sim.limits import limits, split
from benchmarks.cluster_sim.model import Cluster, Design, simulated

GPUS = tuple(4**power for power in range(6))
LOOPS = {"synchronous, the same GPUs": (0, True), "synchronous": (0, False), "k = 1": (1, False), "k = 3": (3, False)}
"""How far batches are drawn ahead, and whether the same GPUs draw and train."""
COUNTED = 24
"""Batches: so many that late episodes even out, and that each of the loops counts whole rounds."""
SATURATED = 1.5
"""Where four times the GPUs draw less than so many times as many tokens a second, more are hardly of use."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What grows with the cluster."""

    name: str
    groups: int
    """Of a batch, on however many GPUs; 0: one for every eight GPUs."""

    def design(self, gpus: int, ahead: int, *, colocated: bool = False, **how: Any) -> Design:
        """On so many GPUs, which are not yet parted."""
        groups = self.groups or max(1, gpus // 8)
        return Design(
            gpus, gpus, groups=groups, group_size=16, max_staleness=ahead, colocated=colocated, **{"shard": 1, **how}
        )


FIXED = Growth("fixed batch", 16)
GROWING = Growth("batch grows", 0)


def parted(design: Design, gpus: int, work: Work, costs: Costs) -> Design:
    """With its GPUs given to samplers and trainers, as the limits say is best."""
    if design.colocated or gpus == 1:
        return replace(design, samplers=gpus, trainers=gpus, colocated=True, max_staleness=0)
    samplers, trainers = split(gpus, design, work, costs)
    return replace(design, samplers=samplers, trainers=trainers)


def enough(design: Design) -> int:
    """Steps of a simulation, of which as many are counted whatever is drawn ahead."""
    return 1 + 2 * design.max_staleness + COUNTED


def scales(growth: Growth, work: Work, costs: Costs, gpus: Sequence[int] = GPUS) -> list[dict[str, Any]]:
    """A row for each loop and number of GPUs."""
    rows = []
    for loop, (ahead, colocated) in LOOPS.items():
        for count in gpus:
            design = parted(growth.design(count, ahead, colocated=colocated), count, work, costs)
            found = simulated(design, work, costs, steps=enough(design))
            rows.append(
                {
                    "growth": growth.name,
                    "loop": loop,
                    "gpus": count,
                    "samplers": design.samplers,
                    "trainers": design.trainers,
                    "limit": limits(design, work, costs, batches=8).step(design.max_staleness),
                    **found.told(),
                }
            )
    return rows


def saturates(rows: Sequence[dict[str, Any]]) -> int | None:
    """The GPUs from which on four times as many are hardly of use: of rows of one loop, by GPUs."""
    for fewer, more in pairwise(rows):
        if more["tokens"] < SATURATED * fewer["tokens"]:
            return int(fewer["gpus"])
    return None


def bottlenecks(
    growth: Growth, ahead: int, work: Work, costs: Costs, gpus: Sequence[int] = GPUS
) -> list[dict[str, Any]]:
    """For each number of GPUs, the share of a step that goes if one part is twice as fast, part by part."""
    rows = []
    for count in gpus:
        design = parted(growth.design(count, ahead), count, work, costs)
        steps = enough(design)
        whole = simulated(design, work, costs, steps=steps).seconds
        quick = replace(work, latency=work.latency / 2, late_seconds=work.late_seconds / 2)
        saved = {part: 1 - simulated(design, work, costs.faster(part), steps=steps).seconds / whole for part in PARTS}
        saved["environment"] = 1 - simulated(design, quick, costs, steps=steps).seconds / whole
        rows.append(
            {"growth": growth.name, "gpus": count, "saved": saved, "bottleneck": max(saved, key=saved.__getitem__)}
        )
    return rows


def choices(work: Work, costs: Costs, gpus: Sequence[int]) -> list[dict[str, Any]]:
    """For each choice and number of GPUs, a step's time as a multiple of the usual design's (k = 1, batch grows)."""
    rows = []
    for count in gpus:
        usual = parted(GROWING.design(count, 1), count, work, costs)
        base = simulated(usual, work, costs, steps=enough(usual)).seconds
        for name, design in chosen(usual):
            seconds = simulated(design, work, costs, steps=enough(design)).seconds
            fits = costs.fits(design.weights, min(design.shard or design.trainers, design.trainers))
            rows.append({"choice": name, "gpus": count, "seconds": seconds, "multiple": seconds / base, "fits": fits})
    return rows


def chosen(usual: Design) -> Iterator[tuple[str, Design]]:
    """The usual design, and those that differ from it in one thing."""
    yield "usual", usual
    yield "base sharded over 8", replace(usual, shard=min(8, usual.trainers))
    yield "base sharded over all", replace(usual, shard=0)
    yield "whole weights, broadcast", replace(usual, weights="full", shard=0)
    yield "whole weights, object store", replace(usual, weights="full", shard=0, spread="store")
    yield "adapter, object store", replace(usual, spread="store")
    yield "a group on one sampler", replace(usual, routing="grouped")
    yield "sampler by hash", replace(usual, routing="hashed")
    yield "sampler of each turn", replace(usual, routing="free")
    yield "ranks get their shares", replace(usual, distribution="shares")
    episodes = usual.groups * usual.group_size
    yield "groups of 4", replace(usual, groups=episodes // 4, group_size=4)
    yield "groups of 64", replace(usual, groups=max(1, episodes // 64), group_size=min(64, episodes))
    yield "an environment worker for 4 episodes", replace(usual, environments=max(1, episodes // 4))


def synchronised(costs: Costs, samplers: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds from new weights to samplers that draw from them, by what is sent and how."""
    rows = []
    for count in samplers:
        for weights in ("adapter", "full"):
            for spread in ("broadcast", "store"):
                cluster = Cluster(Design(count, 8, weights=weights, spread=spread), costs)
                seconds = cluster.published() + cluster.spread() + cluster.loaded()
                rows.append({"samplers": count, "weights": weights, "spread": spread, "seconds": seconds})
    return rows
