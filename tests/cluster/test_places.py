"""Where ranks are put: each has a GPU to itself, on machines with the labels that are asked for."""

import os

import pytest

from fettle.config import LocalEngine, RayEngine
from fettle.errors import EngineError

from .ranks import TRAINERS, ray_here


def test_each_rank_has_a_gpu_of_its_own_where_the_labels_are(tmp_path):
    import ray  # noqa: PLC0415

    from fettle.cluster.ranks import Ranks  # noqa: PLC0415

    def made():
        return LocalEngine(threads=1, device="cpu"), tmp_path, False

    need = {"CPU": 1.0, "GPU": 1.0}
    with ray_here():
        elsewhere = RayEngine(workers=1, start_seconds=0.5, labels={"ray.io/node-group": "samplers"})
        with pytest.raises(
            EngineError, match=r"has no room on machines labelled ray\.io/node-group=samplers for 1 ranks"
        ):
            Ranks(elsewhere, need, made)
        ranks = Ranks(RayEngine(workers=2, start_seconds=250.0, labels=TRAINERS), need, made)
        try:
            seen = [
                each.__ray_call__.remote(lambda _: os.environ["CUDA_VISIBLE_DEVICES"])
                for each in ranks._actors.values()
            ]
            assert sorted(ray.get(seen)) == ["0", "1"]
        finally:
            ranks.close()
