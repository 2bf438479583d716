"""The backend that the settings of a cluster ask for: ranks, and samplers beside them or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fettle.cluster import actors, vllm
from fettle.cluster.backend import ClusterBackend
from fettle.cluster.beside import SampledBeside, Trainer
from fettle.cluster.parity import Parity
from fettle.cluster.pool import Pool
from fettle.cluster.seat import Seat
from fettle.config import RayEngine, VLLMSamplers


@contextmanager
def opened(settings: RayEngine, checkpoints: Path) -> Iterator[Trainer]:
    """It is ended with the block.

    Raises:
        UnreachableError: there is no cluster.
        EngineError: ranks or samplers do not begin, or a server does not answer.
    """
    ranks = ClusterBackend(settings, checkpoints=checkpoints)
    try:
        if settings.samplers is None:
            yield ranks
        else:
            beside = SampledBeside(ranks, Pool(_seats(settings)), Parity(settings.samplers.parity))
            try:
                yield beside
            finally:
                beside.close()
    finally:
        ranks.close()


def _seats(settings: RayEngine) -> Sequence[Seat]:
    assert settings.samplers is not None, "asked for where there are samplers"
    if isinstance(settings.samplers, VLLMSamplers):
        return vllm.joined(settings.samplers, settings)
    return actors.begun(settings.samplers, settings)
