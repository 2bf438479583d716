"""What is exported computes what the checkpoint computed, in other programs' hands."""

import hashlib
import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fettle.config import LoRA
from fettle.deploy.export import export
from fettle.engine.local.checkpoint import verify
from fettle.errors import CheckpointError, ModelError

from .conftest import saved

TOKENS = torch.arange(3, 23)[None]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def test_a_merged_model_says_what_the_base_says_with_the_adapter(adapted, base, tmp_path):
    export(str(adapted), tmp_path / "out")
    alone = AutoModelForCausalLM.from_pretrained(base)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    adapter_on = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapted))
    torch.testing.assert_close(logits(merged), adapter_on, rtol=0, atol=1e-6)
    assert (logits(alone) - adapter_on).abs().max() > 1e-2


def test_an_adapter_goes_as_peft_reads_it(adapted, base, tmp_path):
    export(str(adapted), tmp_path / "out", form="adapter")
    here = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    there = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapted)
    assert torch.equal(logits(here), logits(there))
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_adapter_beside_few_bits_is_merged_into_what_they_stand_for(base, tmp_path):
    checkpoint = saved(base, tmp_path, lora=LoRA(rank=4), quantization="int8")
    export(str(checkpoint), tmp_path / "out")
    export(str(checkpoint), tmp_path / "adapter", form="adapter")
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    unrounded = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter"))
    assert 1e-4 < (merged - unrounded).abs().max() < 1


def test_weights_that_were_trained_whole_go_as_they_are(whole, tmp_path):
    export(str(whole), tmp_path / "out")
    before, after = (AutoModelForCausalLM.from_pretrained(each) for each in (whole, tmp_path / "out"))
    assert torch.equal(logits(before), logits(after))


def test_weights_can_go_in_half_the_bytes(adapted, tmp_path):
    export(str(adapted), tmp_path / "full")
    export(str(adapted), tmp_path / "half", precision="bfloat16")
    full, half = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("full", "half"))
    assert half.dtype == torch.bfloat16
    for exact, rounded in zip(full.parameters(), half.parameters(), strict=True):
        assert torch.equal(exact.bfloat16(), rounded)


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_export_speaks_for_itself(adapted, base, tmp_path, form):
    folder = tmp_path / "out"
    assert export(str(adapted), folder, form=form) == json.loads((folder / "origin.json").read_text())
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["form"], origin["run"], origin["step"], origin["base_model"]) == (form, "run", 7, base)
    config = adapted.parents[1] / "config.yaml"
    assert origin["config_sha256"] == hashlib.sha256(config.read_bytes()).hexdigest()
    assert origin["checkpoint_sha256"] == hashlib.sha256((adapted / "manifest.json").read_bytes()).hexdigest()
    hashes = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert hashes.keys() == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert not {"policy.json", "optimizer.safetensors"} & hashes.keys()
    words = AutoTokenizer.from_pretrained(folder)
    assert words.chat_template == AutoTokenizer.from_pretrained(base).chat_template is not None
    verify(folder)
    (folder / "origin.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"origin\.json is not what was saved"):
        verify(folder)


def test_a_head_goes_with_its_model(base, tmp_path):
    checkpoint = saved(base, tmp_path, lora=LoRA(rank=4), head="reward")
    export(str(checkpoint), tmp_path / "out")
    assert (tmp_path / "out" / "head.safetensors").read_bytes() == (checkpoint / "head.safetensors").read_bytes()


def test_what_cannot_be_exported_says_why(adapted, whole, tmp_path):
    with pytest.raises(ModelError, match="there is no adapter in"):
        export(str(whole), tmp_path / "out", form="adapter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty holds no model: name a run"):
        export(str(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(CheckpointError, match="name a new one"):
        export(str(whole), tmp_path)
    with pytest.raises(ModelError, match="no model folder"):
        export(str(tmp_path / "nowhere"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
