"""What ranks and the samplers beside them need of a cluster, told from their settings."""

import torch

from fettle.config import ActorSamplers, LaunchedEngine, LocalEngine, RayEngine


def of_rank(settings: RayEngine | LaunchedEngine, *, beside: int = 1) -> LocalEngine:
    """The settings of the engine in each rank: threads and device as this machine would choose them.

    ``beside``: how many ranks this machine's threads are shared out among.
    """
    shared = settings.model_dump(include=set(LocalEngine.model_fields) - {"type", "gpu_ids"})
    threads = settings.threads or max(1, torch.get_num_threads() // beside)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if settings.device == "auto" else settings.device
    return LocalEngine(**{**shared, "threads": threads, "device": device})


def of_samplers(settings: RayEngine) -> int:
    """Processors for samplers."""
    return settings.samplers.count * settings.samplers.threads if isinstance(settings.samplers, ActorSamplers) else 0
