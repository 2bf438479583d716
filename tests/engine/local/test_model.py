"""Models that cannot be loaded say where and what to mend."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fettle.config import LocalEngine, PolicySpec
from fettle.engine.local import LocalBackend
from fettle.engine.local.model import load_model
from fettle.engine.local.policy import LocalPolicy
from fettle.errors import CheckpointError, ModelError

from .conftest import capped


def load(source: str):
    return load_model(source, device=torch.device("cpu"), precision="float32", trained=False)


def copy(tiny: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model folder .*nowhere: give a folder with config\.json"):
        load(str(tmp_path / "nowhere"))


def test_a_hub_name_that_cannot_be_reached_is_named():
    with pytest.raises(ModelError, match="no model 'someone/something': it is neither a folder here nor a hub name"):
        load("someone/something")


def test_an_empty_folder_says_what_it_needs(tmp_path):
    with pytest.raises(ModelError, match=r"cannot be loaded .*: the folder needs config\.json, \*\.safetensors"):
        load(str(tmp_path))


@pytest.mark.parametrize("victim", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_corrupt_file_is_one_sentence(tiny, tmp_path, victim):
    folder = copy(tiny, tmp_path)
    (folder / victim).write_bytes(b"\x00not what it was")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load(str(folder))
    assert "\n" not in caught.value.message


def test_weights_cut_short_are_one_sentence(tiny, tmp_path):
    folder = copy(tiny, tmp_path)
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(folder))


def test_models_that_are_loaded_at_once_have_each_its_own_precision(tiny):
    """transformers changes torch's default type while it loads, which is the whole process's."""

    def loaded(precision: str) -> set[torch.dtype]:
        model = load_model(tiny, device=torch.device("cpu"), precision=precision, trained=False)
        return {tensor.dtype for tensor in model.module.parameters()}

    before = torch.get_default_dtype()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(6):
            found = list(threads.map(loaded, ["float32", "bfloat16"] * 4))
            assert found == [{torch.float32}, {torch.bfloat16}] * 4
            assert torch.get_default_dtype() is before


def test_limits_are_the_models_own(tiny, gpt2):
    model = load(tiny)
    assert (model.context, model.vocabulary) == (128, len(model.tokenizer))
    assert load(gpt2).context == 128
    assert model.end_token_ids == {model.tokenizer.eos_token_id}


def test_frozen_models_take_no_gradient(tiny):
    assert not any(p.requires_grad for p in load(tiny).parameters.values())


def test_a_checkpoint_that_was_altered_is_no_base_to_start_from(tiny, tmp_path):
    LocalPolicy(PolicySpec(model=tiny), load(tiny)).save(tmp_path / "saved", optimizer=False)
    victim = tmp_path / "saved" / "model.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was saved"):
        load(str(tmp_path / "saved"))


def test_a_head_whose_output_is_capped_is_told_from_one_matrix_however_small_its_logits(tmp_path, tiny):
    """At 30, as Gemma 2 ships it, capping changes a fresh model's small logits by less than any tolerance."""
    assert not load(capped(30.0, tiny, tmp_path / "gemma")).head_is_one_matrix
    assert load(tiny).head_is_one_matrix


def test_one_token_alone_has_no_log_probability(tiny, tmp_path):
    backend = LocalBackend(LocalEngine(), checkpoints=tmp_path)
    backend.create_policy("p", PolicySpec(model=tiny))
    weights, _ = backend.pin("p")
    (alone,) = backend.logprobs(weights, [[5]], temperature=1.0)
    short, long = backend.logprobs(weights, [[5], [5, 6, 7]], temperature=1.0)
    assert alone.tolist() == short.tolist() == [0.0]
    assert long == pytest.approx(backend.logprobs(weights, [[5, 6, 7]], temperature=1.0)[0], abs=1e-5)
