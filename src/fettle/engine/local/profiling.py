"""Which operators take the time of the thread that computes, as torch's profiler tells it."""

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator did itself, without those it called."""

    name: str
    calls: int
    seconds: float
    """On the device where that is a GPU, else on this thread."""


class OperatorProfile:
    """One stretch of a thread's work. Both ends belong to that thread."""

    def __init__(self) -> None:
        self._on_gpu = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        self._profile = profile(activities=activities)

    def start(self) -> None:
        """The stretch begins."""
        self._profile.start()

    def stop(self) -> list[Operator]:
        """It ends: its operators, the most expensive first."""
        self._profile.stop()
        found = [
            Operator(each.key, each.count, self._microseconds(each) / 1e6) for each in self._profile.key_averages()
        ]
        return sorted(found, key=lambda operator: -operator.seconds)

    def _microseconds(self, event: torch.autograd.profiler_util.FunctionEventAvg) -> float:
        return float(event.self_device_time_total if self._on_gpu else event.self_cpu_time_total)
