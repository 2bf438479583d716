"""How long each operation takes: a table of costs, each with its source, and the arithmetic from them to seconds."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from benchmarks.cluster_sim.samplers import Rates

Weights = Literal["adapter", "full"]
HERE = Path(__file__).parent
PUBLISHED, MEASURED = HERE / "h100.json", HERE / "measured.json"


@dataclass(frozen=True, slots=True)
class Costs:
    """What each is, and where it is from: the JSON file says. Seconds, bytes, and either by the other."""

    parameters: float
    layers: float
    weight_bytes: float
    kv_bytes: float
    adapter_bytes: float
    gpu_bytes: float
    gpu_usable: float
    memory_rate: float
    memory_share: float
    flops: float
    flops_share: float
    adapter_slowdown: float
    train_token_seconds: float
    adapter_train_share: float
    jitter: float
    micro_tokens: float
    node: float
    node_rate: float
    nic_rate: float
    nic_share: float
    hop_seconds: float
    front_rate: float
    store_rate: float
    broadcast_rate: float
    adapter_load: float
    whole_load: float
    switch_seconds: float
    driver_turn: float
    driver_episode: float
    driver_token: float
    token_bytes: float

    @property
    def model_bytes(self) -> float:
        """Of the weights."""
        return self.parameters * self.weight_bytes

    def bytes_of(self, weights: Weights) -> float:
        """What a sampler needs after a step."""
        return self.adapter_bytes if weights == "adapter" else self.model_bytes

    def rates(self, weights: Weights) -> Rates:
        """Of a sampler of one GPU. A token takes as long as the weights take to be read, or the arithmetic of all
        sequences; and then as their keys and values take."""
        slower = self.adapter_slowdown if weights == "adapter" else 1.0
        memory, flops = self.memory_rate * self.memory_share, self.flops * self.flops_share
        weights_read, each = self.model_bytes / memory, 2 * self.parameters / flops
        held = self.kv_bytes / memory
        room = (self.gpu_bytes * self.gpu_usable - self.model_bytes) / self.kv_bytes
        return Rates(
            read=lambda tokens: slower * tokens * each,
            token=lambda sequences, tokens: slower * (max(weights_read, sequences * each) + tokens * held),
            room=room,
        )

    def bus(self, ranks: int) -> float:
        """Bytes a second of a ring over so many GPUs: within a machine, or through all the NICs of one."""
        return self.node_rate if ranks <= self.node else self.nic_rate * self.nic_share * self.node

    def gather(self, size: float, ranks: int) -> float:
        """Seconds to gather ``size`` bytes that lie in parts on so many ranks, layer by layer; or to scatter them."""
        if ranks <= 1:
            return 0.0
        return size * (ranks - 1) / ranks / self.bus(ranks) + self.layers * (ranks - 1) * self.hop_seconds

    def reduced(self, size: float, ranks: int) -> float:
        """Seconds to add up ``size`` bytes in one go over so many ranks."""
        if ranks <= 1:
            return 0.0
        return 2 * (size * (ranks - 1) / ranks / self.bus(ranks) + (ranks - 1) * self.hop_seconds)

    def slowest(self, ranks: int) -> float:
        """How much longer than the mean the slowest of so many ranks takes."""
        return 1 + self.jitter * max(0.0, NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)))

    def trained(self, tokens: Sequence[float], weights: Weights, shard: int) -> tuple[float, float]:
        """Seconds of a step in which ranks have so many tokens each; and how many of them are collectives that no
        arithmetic hides.

        ``shard`` ranks hold the base's weights together, which are gathered for each micro-batch, forward and backward.
        All of them take as many micro-batches as the one that has most.
        """
        ranks, adapter = len(tokens), weights == "adapter"
        token = self.train_token_seconds * (self.adapter_train_share if adapter else 1.0)
        most = max(tokens)
        batches = max(1, math.ceil(most / self.micro_tokens))
        computed = most * token * self.slowest(ranks)
        collective = 2 * self.gather(self.model_bytes, shard)
        if not adapter:
            collective += self.gather(2 * self.model_bytes, shard)  # gradients in float32
        exposed = batches * max(0.0, collective - computed / batches)
        exposed += collective / self.layers  # the first layer's weights, the last one's gradients
        if adapter:
            exposed += self.reduced(2 * self.adapter_bytes, ranks)
        elif shard < ranks:
            exposed += self.reduced(2 * self.model_bytes / shard, ranks // shard)
        return computed + exposed, exposed

    def fits(self, weights: Weights, shard: int) -> bool:
        """Whether a rank's share of what is kept (of whole weights also gradients and Adam's state) leaves room."""
        held = self.model_bytes if weights == "adapter" else 16 * self.parameters
        return held / shard <= 0.75 * self.gpu_bytes

    def faster(self, part: str, factor: float = 2.0) -> "Costs":
        """The same with one part so many times as fast."""
        return replace(self, **{name: change(getattr(self, name), factor) for name, change in PARTS[part].items()})


def _more(value: float, factor: float) -> float:
    return value * factor


def _less(value: float, factor: float) -> float:
    return value / factor


PARTS = {
    "sampler": {"memory_rate": _more, "flops": _more},
    "trainer": {"train_token_seconds": _less},
    "collective": {"node_rate": _more, "nic_rate": _more, "hop_seconds": _less},
    "driver": {"driver_turn": _less, "driver_episode": _less, "driver_token": _less, "front_rate": _more},
    "sync": {
        "broadcast_rate": _more,
        "store_rate": _more,
        "adapter_load": _less,
        "whole_load": _less,
        "switch_seconds": _less,
    },
}
"""What may be the bottleneck, and which costs it is made of. Environments are of the work, and not of the cluster."""


def costs(*files: Path) -> Costs:
    """The table in the files; a later one's costs take the place of an earlier one's.

    Raises:
        SystemExit: one is not known, or is missing.
    """
    found: dict[str, float] = {}
    for file in files:
        found |= {name: value for name, (value, _) in json.loads(file.read_text(encoding="utf-8"))["costs"].items()}
    names = {field.name for field in fields(Costs)}
    if found.keys() != names:
        raise SystemExit(f"{files[-1]}: costs unknown or missing: {', '.join(sorted(found.keys() ^ names))}")
    return Costs(**found)
