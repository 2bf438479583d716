"""A few rows of a small model: the same numbers as plain forward passes, whatever the family and whoever is beside."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fettle.config import LoRA, SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.batch import Batch
from fettle.engine.local.cache import Pool, structure
from fettle.engine.local.decode import Decoder
from fettle.engine.local.few import FEW, FewPath, few, one_thread, prepared, small
from fettle.engine.local.forward import Voice
from fettle.engine.local.kept import Kept
from fettle.engine.local.lora import Adapter
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.paths import Path
from fettle.engine.local.probe import difference
from fettle.engine.local.roster import Roster, roster
from fettle.engine.local.shared import Memory, SharedPath
from fettle.types import Completion

from .decoding import CONTEXT, PROMPTS, VOCABULARY, complete, decoder_of, language_model, make, requests, tokens_of
from .test_lean import CONFIGS, lean, made

SUITED = [name for name in CONFIGS if not name.startswith(("gemma", "gpt2")) and "sliding" not in name]


def watched(sampling: Decoder) -> list[type]:
    """How each call is run from now on."""
    ran: list[type] = []
    through = sampling._ran

    def noted(wanted: Roster, path: Path) -> Batch:
        ran.append(type(path))
        return through(wanted, path)

    sampling._ran = noted
    return ran


def rows_of(asked: list[SampleRequest]) -> Roster:
    voices = [0] * len(asked)
    return roster(
        asked, voices, vocabulary=VOCABULARY, context=CONTEXT, token_budget=1 << 18, end_token_ids=frozenset()
    )


def adapter(model: LanguageModel, seed: int = 0) -> Adapter:
    found = model.slots.adapter(LoRA(rank=3, alpha=8), seed=seed)
    for _, up in found.layers.values():
        up.data.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    return found


@pytest.mark.parametrize("variant", SUITED)
def test_logits_are_those_of_plain_forward_passes(variant: str) -> None:
    model = made(variant)
    forward = lean(model)

    def kind(trial: Roster, token_budget: int) -> FewPath:
        like, memory = structure(forward, model.device), Memory(Pool(0), Kept(0))
        prompts = SharedPath(forward, like, trial, token_budget, voices=[Voice(0)], adapters=[None], memory=memory)
        return FewPath(prompts, trial, prepared(Voice(0), forward).weights)

    assert small(forward)
    assert difference(kind, model.module) == ""


@pytest.mark.parametrize("variant", ["gemma", "gemma3", "gpt2"])
def test_other_families_are_run_as_many_rows_are(variant: str) -> None:
    assert not small(lean(made(variant)))


def test_bfloat16_is_run_as_many_rows_are() -> None:
    assert not small(lean(made("qwen3", precision="bfloat16")))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_few_rows_draw_what_they_draw_among_many(name: str, adapted: bool) -> None:
    model = language_model(make(name))
    sampling = decoder_of(model)
    voice = Voice(0, adapter=adapter(model) if adapted else None)
    ran = watched(sampling)

    def drawn(n: int) -> list[list[Completion]]:
        asked = requests(n, max_tokens=30, seed=4, stop_token_ids=(3, 4, 5))
        return sampling.complete(asked, [voice] * len(asked))

    one, many = drawn(3), drawn(FEW)
    assert ran == [FewPath, SharedPath]
    assert tokens_of(one) == [rows[:3] for rows in tokens_of(many)]
    for rows, others in zip(one, many, strict=True):
        for row, other in zip(rows, others, strict=False):
            assert row.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_what_is_kept_of_a_policy_is_not_drawn_from_once_it_has_moved_on() -> None:
    model = language_model(make("qwen3"))
    sampling, asked = decoder_of(model), requests(2, max_tokens=12)
    voices = [Voice(version, adapter=adapter(model, version), owner="a policy") for version in (0, 1)]
    fresh = [tokens_of(decoder_of(model).complete(asked, [voice] * len(asked))) for voice in voices]
    assert fresh[0] != fresh[1]
    for version in (0, 0, 1, 0):
        again = replace(voices[version], adapter=replace(voices[version].adapter))  # as each call brings it
        assert tokens_of(sampling.complete(asked, [again] * len(asked))) == fresh[version]


def test_one_policys_weights_are_let_go_of_with_it() -> None:
    model = language_model(make("qwen3"))
    sampling = decoder_of(model)
    sampling.complete(requests(1, max_tokens=2), [Voice(0, adapter=adapter(model), owner="a policy")] * len(PROMPTS))
    assert sampling._prepared is not None
    sampling.forget("a policy")
    assert sampling._prepared is None


def test_whole_weights_which_change_where_they_are_are_looked_at_anew() -> None:
    model = language_model(make("qwen3"))
    sampling, asked = decoder_of(model), requests(1, max_tokens=8)
    voices = [Voice(0, owner="a policy")] * len(PROMPTS)
    before = tokens_of(sampling.complete(asked, voices))
    kept = {name: parameter.detach().clone() for name, parameter in model.module.named_parameters()}
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter))
    past = [Voice(0, tensors=kept, owner="a policy")] * len(PROMPTS)
    assert tokens_of(sampling.complete(asked, past)) == before


def test_what_no_one_owns_is_made_anew_for_each_call() -> None:
    sampling = decoder_of(language_model(make("qwen3")))
    complete(sampling, requests(1, max_tokens=2))
    assert sampling._prepared is None


def test_rows_that_are_many_or_long_or_go_on_are_not_few(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = lean(made("qwen3"))
    short = SamplingParams(max_tokens=8)
    assert few(forward, rows_of([SampleRequest([1, 2], FEW, short)]), 1 << 18)
    assert not few(forward, rows_of([SampleRequest([1, 2], FEW + 1, short)]), 1 << 18)
    assert not few(forward, rows_of([SampleRequest([1, 2], FEW, short)]), FEW * 10 - 1)
    assert not few(forward, rows_of([SampleRequest([1, 2], 1, short.model_copy(update={"continued": True}))]), 1 << 18)
    monkeypatch.setattr("fettle.engine.local.few.TOKENS", FEW * 10 - 1)
    assert not few(forward, rows_of([SampleRequest([1, 2], FEW, short)]), 1 << 18)


def test_threads_are_as_they_were_afterwards() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_diverged_weights_are_refused_without_a_word_from_numpy(recwarn: pytest.WarningsRecorder) -> None:
    model = language_model(make("qwen3"))
    sampling = decoder_of(model)
    assert sampling.path == "lean"
    with torch.no_grad():
        model.module.get_input_embeddings().weight[np.arange(8, VOCABULARY)] = float("inf")
    with pytest.raises(Exception, match="not finite"):
        complete(sampling, requests(2, [[1, 2, 3]], max_tokens=40))
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]
