"""Rows of several adapters in one batch, other weights in the model's place, and the ways that rows are run."""

import resource
from pathlib import Path

import pytest
import torch
import transformers

from fettle.config import LoRA
from fettle.engine.local import bifurcated, paths
from fettle.engine.local.batch import Batch
from fettle.engine.local.few import FewPath
from fettle.engine.local.forward import Voice
from fettle.engine.local.lora import Adapter
from fettle.engine.local.model import LanguageModel
from fettle.engine.local.parts import Part, plain
from fettle.engine.local.roster import Roster
from fettle.engine.local.shared import SharedPath
from fettle.errors import EngineError

from .decoding import CONTEXT, PROMPTS, SIZES, complete, decoder, decoder_of, language_model, make, requests, tokens_of


def adapters(model: LanguageModel) -> list[Adapter]:
    """Two of unlike rank, which change what is drawn."""
    made = [model.slots.adapter(LoRA(rank=rank, alpha=8), seed=rank) for rank in (2, 5)]
    for number, adapter in enumerate(made):
        for _, up in adapter.layers.values():
            up.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    return made


@torch.no_grad()
def own_logprobs(model: LanguageModel, voice: Voice, prompt: list[int], tokens: list[int]) -> list[float]:
    """From one forward pass of transformers' modules, with the voice's adapter in its slots."""
    with model.slots.holding(voice.adapter):
        logits = model.module(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0]
    logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "driven"])
@pytest.mark.parametrize("name", ["qwen3", "llama", "gpt2"])
def test_rows_of_several_adapters_are_each_drawn_from_its_own(name: str, lean: bool) -> None:
    model = language_model(make(name))
    voices = [Voice(4), *(Voice(version, adapter=adapter) for version, adapter in enumerate(adapters(model)))]
    sampling = decoder_of(model, lean=lean, budget=300)
    # The same prompts for all, some of whose rows wait and leave early.
    asked = [one for n in (3, 2, 4) for one in requests(n, max_tokens=25, seed=n, stop_token_ids=(3, 4, 5))]
    whose = [voice for voice in voices for _ in PROMPTS]
    found = sampling.complete(asked, whose)
    assert sampling.path == ("lean" if lean else "driven")
    for request, voice, completions in zip(asked, whose, found, strict=True):
        for row in completions:
            expected = own_logprobs(model, voice, list(request.prompt), row.tokens)
            assert row.logprobs == pytest.approx(expected, abs=1e-5)
            assert row.policy_version == voice.version


def test_all_adapters_run_in_one_batch() -> None:
    model = language_model(make("qwen3"))
    rows: list[int] = []
    sampling = decoder_of(model)
    assert sampling.path == "lean"
    made = sampling._lean(None)
    assert made is not None
    run = made.logits
    made.logits = lambda tokens, *others, **named: rows.append(len(tokens)) or run(tokens, *others, **named)  # type: ignore[method-assign]
    sampling._lean = lambda _: made
    voices = [Voice(0), *(Voice(0, adapter=adapter) for adapter in adapters(model))]
    sampling.complete(requests(2, PROMPTS[:3], max_tokens=4), voices)
    assert rows == [sum(map(len, PROMPTS[:3])), 6, 6, 6]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "driven"])
def test_other_values_stand_in_the_place_of_the_models_own(lean: bool) -> None:
    model, other = language_model(make("llama")), make("llama", seed=1)
    past = dict(other.named_parameters())
    sampling = decoder_of(model, lean=lean)
    before = tokens_of(complete(sampling, requests(max_tokens=9)))
    found = sampling.complete(requests(max_tokens=9), [Voice(1, tensors=past)] * len(PROMPTS))
    assert tokens_of(found) == tokens_of(complete(decoder(other), requests(max_tokens=9)))
    assert before == tokens_of(complete(sampling, requests(max_tokens=9)))


def test_attention_by_plain_operations_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_plain_operations(*states: torch.Tensor, scale: float, mask: torch.Tensor | None = None) -> Part:
        return Part(*(tensor.transpose(1, 2) for tensor in plain(*states, scale=scale, mask=mask)))

    sampling = decoder(make("qwen3"), budget=200)
    asked = requests(5, max_tokens=30, stop_token_ids=(3, 4, 5))
    expected = complete(sampling, asked)
    monkeypatch.setattr(bifurcated, "part", by_plain_operations)
    assert tokens_of(complete(sampling, asked)) == tokens_of(expected)


def test_sequences_beyond_a_layers_window_take_the_generic_path(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=16)).eval()
    sampling, plain_path = decoder(model), decoder(model)
    plain_path._found = ("generic", None)
    for longest in (6, 30, 30):
        found = complete(sampling, requests(max_tokens=longest))
        assert tokens_of(found) == tokens_of(complete(plain_path, requests(max_tokens=longest)))
    assert sampling.path == "driven"
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith("one of its layers sees 16 tokens back, and sequences of 39 are asked for")


@pytest.mark.parametrize("lean", [False, True])
def test_only_what_may_outgrow_a_layers_window_leaves_the_fast_path(lean: bool) -> None:
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=16)).eval()
    sampling, plain_path = decoder(model, lean=lean), decoder(model)
    plain_path._found = ("generic", None)
    asked = [*requests(max_tokens=6), *requests(max_tokens=30)]
    expected = tokens_of(complete(plain_path, asked))
    ran: list[tuple[type, int]] = []
    through = sampling._ran

    def noted(wanted: Roster, path: paths.Path) -> Batch:
        ran.append((type(path), len(wanted)))
        return through(wanted, path)

    sampling._ran = noted
    assert tokens_of(complete(sampling, asked)) == expected
    shared = FewPath if lean else SharedPath
    assert sorted(ran, key=str) == sorted([(paths.GenericPath, 8), (shared, 8)], key=str)


def test_weights_without_a_lean_forward_are_not_drawn_from_others() -> None:
    model = language_model(make("qwen3"))
    sampling = decoder_of(model)
    assert sampling.path == "lean"
    model.head_is_one_matrix = False
    voices = [Voice(0, owner="one"), Voice(0, owner="two")]
    with pytest.raises(EngineError, match="was changed since it was first sampled"):
        sampling.complete(requests()[:2], voices)


def test_running_out_of_memory_names_the_setting_and_leaves_a_smaller_call_possible() -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "head_dim": 512, "num_hidden_layers": 8}
    sampling = decoder(transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval())
    assert sampling.path == "driven"
    small = requests(1, max_tokens=3)
    expected = tokens_of(complete(sampling, small))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), before[1]))  # 256 MiB more, and 2 GiB are asked for
    try:
        with pytest.raises(EngineError, match=r"lower engine\.sample_tokens"):
            complete(sampling, requests(128, max_tokens=CONTEXT))
        assert tokens_of(complete(sampling, small)) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
