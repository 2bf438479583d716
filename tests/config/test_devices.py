"""Which GPUs are computed on: a table of who says what, and who is believed."""

import pytest

from fettle.config import LaunchedEngine, LocalEngine, RayEngine
from fettle.config.devices import VISIBLE, chosen, index_of, narrow, told
from fettle.errors import ConfigError
from tests.cli.conftest import furnished, typed

SEEN, PLACE = {VISIBLE: "4,5"}, {"LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("engine", "environment", "gpus", "by"),
    [
        (LocalEngine(), {}, None, "what is found here"),
        (LocalEngine(), SEEN, ("4", "5"), VISIBLE),
        (LocalEngine(), {VISIBLE: ""}, (), VISIBLE),
        (LocalEngine(gpu_ids=(2,)), SEEN, ("2",), "engine.gpu_ids"),
        (LocalEngine(device="cpu"), SEEN, (), "engine.device"),
        (RayEngine(gpu_ids=(2, 3)), SEEN | PLACE, ("2", "3"), "engine.gpu_ids"),
        (LaunchedEngine(gpu_ids=(2, 3)), SEEN | PLACE, ("3",), "engine.gpu_ids, the one at LOCAL_RANK 1"),
        (LaunchedEngine(), SEEN | PLACE, ("5",), "CUDA_VISIBLE_DEVICES, the one at LOCAL_RANK 1"),
        (LaunchedEngine(), PLACE, ("1",), "what is found here, the one at LOCAL_RANK 1"),
        (LaunchedEngine(), {"SLURM_LOCALID": "2"}, ("2",), "what is found here, the one at SLURM_LOCALID 2"),
        (LaunchedEngine(), {VISIBLE: "7", "SLURM_LOCALID": "1"}, ("7",), VISIBLE),  # SLURM has bound it already
    ],
)
def test_who_is_believed(engine, environment, gpus, by):
    found = chosen(engine, environment)
    assert (found.gpus, found.by) == (gpus, by)
    assert by in told(engine, environment)[0]


def test_what_a_process_sees_is_numbered_from_nought_and_chosen_once(monkeypatch):
    monkeypatch.setenv(VISIBLE, "4,5")
    assert (index_of(5), index_of(2)) == (1, 2)
    with pytest.raises(ConfigError, match=r"stages name different engine\.gpu_ids"):
        narrow([LocalEngine(gpu_ids=(1,)), LocalEngine(gpu_ids=(2,))])
    narrow([LaunchedEngine(gpu_ids=(6, 7)), LocalEngine(device="cpu")])
    assert (index_of(7), index_of(6)) == (1, 0)
    with pytest.raises(ConfigError, match="has 2 GPUs, and LOCAL_RANK is 2: start no more processes"):
        chosen(LaunchedEngine(gpu_ids=(6, 7)), {"LOCAL_RANK": "2"})


def test_a_flag_goes_before_the_recipe_and_a_gpu_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0")
    desk = furnished(tmp_path / "desk")
    planned = typed("plan", "tiny.yaml", "engine.gpu_ids=[1]", "--gpu-ids", "3", into=desk)
    assert "computes on: GPU 3, by engine.gpu_ids\n" in planned.out
    ended = typed("train", "tiny.yaml", "--gpu-ids", "97", into=desk)
    assert (ended.code, ended.complaint) == (
        2,
        "engine.gpu_ids names 97, and of these torch sees 0 here: see nvidia-smi -L",
    )
    ended = typed("train", "tiny.yaml", "--gpu-ids", "0,1", into=desk)
    assert "gpu_ids names 2 GPUs, and one process computes on one" in ended.err
