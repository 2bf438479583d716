"""The decode loop: what it draws, what it reports, what it computes, and what it refuses."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import transformers
from scipy import stats
from transformers import PreTrainedModel

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.errors import ModelError

from .decoding import (
    CONTEXT,
    END,
    MODELS,
    PROMPTS,
    SHARED,
    SIZES,
    complete,
    decoder,
    make,
    requests,
    text_of,
    tokens_of,
    watched,
)  # fmt: skip


@torch.no_grad()
def plain_logits(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """Of each of ``tokens`` [n, V], from one forward pass over everything."""
    logits = model(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0].float()
    return logits[len(prompt) - 1 : -1]


def shaped(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Log-probabilities [n, V] after temperature, top-k and top-p, written token by token."""
    rows = []
    for row in logits / (params.temperature or 1.0):
        probs = row.double().softmax(-1)
        order = probs.argsort(descending=True)[: params.top_k or None].tolist()
        mass, kept, total = 0.0, [], float(probs[order].sum())
        for token in order:
            if mass < params.top_p or params.top_p == 1:
                kept.append(token)
            mass += float(probs[token]) / total
        allowed = torch.full_like(probs, float("-inf"))
        allowed[kept] = probs[kept].log()
        rows.append(allowed.log_softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "modules"])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_those_of_generate(name: str, lean: bool) -> None:
    model = make(name)
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    generated = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=20, eos_token_id=END, pad_token_id=0
    )[:, longest:].tolist()
    expected = [row[: row.index(END) + 1] if END in row else row for row in generated]
    sampling = decoder(model, ends=frozenset({END}), lean=lean)
    found = complete(sampling, requests(temperature=0, max_tokens=20))
    assert tokens_of(found) == [[row, row] for row in expected]
    shared = "lean" if lean else "driven"
    assert sampling.path == (shared if name in SHARED else "generic")


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "mistral", "mamba"])
@pytest.mark.parametrize(
    "shape",
    [{}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9}],
    ids=str,
)
def test_log_probabilities_are_those_of_a_full_forward_pass(name: str, shape: dict[str, float]) -> None:
    model, params = make(name), SamplingParams(**shape, max_tokens=24, seed=5, untempered_logprobs=True)
    found = complete(decoder(model), [SampleRequest(prompt, 3, params) for prompt in PROMPTS])
    worst = 0.0
    for prompt, completions in zip(PROMPTS, found, strict=True):
        for completion in completions:
            logits = plain_logits(model, prompt, completion.tokens)
            at = torch.tensor(completion.tokens)[:, None]
            for reported, expected in (
                (completion.logprobs, shaped(logits, params)),
                (completion.untempered_logprobs, logits.log_softmax(-1)),
            ):
                worst = max(worst, (torch.tensor(reported) - expected.gather(1, at)[:, 0]).abs().max().item())
    print(f"{name} {shape}: the largest difference is {worst:.1e}")  # noqa: T201  shown by pytest -rP
    assert worst < 1e-4


def test_greedy_log_probabilities_are_the_models_own() -> None:
    model = make("qwen3")
    completion = complete(decoder(model), requests(1, PROMPTS[:1], temperature=0, max_tokens=8))[0][0]
    own = plain_logits(model, PROMPTS[0], completion.tokens).log_softmax(-1)
    assert completion.logprobs == pytest.approx(own.max(-1).values.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "shape",
    [{}, {"temperature": 0.6}, {"top_k": 6}, {"top_p": 0.7}, {"temperature": 1.4, "top_k": 9, "top_p": 0.9}],
    ids=str,
)
def test_ten_thousand_draws_match_the_exact_distribution(shape: dict[str, float]) -> None:
    torch.manual_seed(3)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{**SIZES, "vocab_size": 16, "eos_token_id": None}))
    params = SamplingParams(**shape, max_tokens=1, seed=0)
    found = complete(decoder(model.eval()), [SampleRequest([3, 1, 4], 10_000, params)])
    counts = np.bincount([completion.tokens[0] for completion in found[0]], minlength=16)
    probs = shaped(plain_logits(model, [3, 1, 4], [0]), params)[0].exp().numpy()
    possible = probs > 0
    assert counts[~possible].sum() == 0
    p_value = stats.chisquare(counts[possible], 10_000 * probs[possible] / probs[possible].sum()).pvalue
    print(f"{shape}: {possible.sum()} tokens possible, p = {p_value:.3f}")  # noqa: T201  shown by pytest -rP
    assert p_value > 1e-3


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
def test_a_row_draws_the_same_tokens_alone_and_in_a_crowd(name: str) -> None:
    # Logits of unlike batches differ in their last bits; a draw would differ only where a number falls into that
    # gap, which is some 1e-6 wide.
    model = make(name)
    own = SampleRequest(PROMPTS[3], 2, SamplingParams(max_tokens=30, seed=42))
    crowd = requests(5, max_tokens=25, seed=1, temperature=0.8, top_k=30) + requests(3, max_tokens=40, seed=2)
    alone = complete(decoder(model), [own])[0]
    among = complete(decoder(model), [*crowd[:5], own, *crowd[5:]])[5]
    assert [row.tokens for row in among] == [row.tokens for row in alone]
    assert among[0].tokens != among[1].tokens
    for one, other in zip(among, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_requests_of_unlike_settings_are_answered_in_order_as_each_would_be_alone() -> None:
    model = make("llama")
    mixed = [
        SampleRequest(PROMPTS[1], 2, SamplingParams(max_tokens=9, seed=1, stop=("ab", "cdc"))),
        SampleRequest(PROMPTS[0], 3, SamplingParams(max_tokens=30, temperature=0, stop_token_ids=(5, 11))),
        SampleRequest(PROMPTS[1], 0, SamplingParams()),
        SampleRequest(PROMPTS[2], 1, SamplingParams(max_tokens=3, top_p=0.5, seed=9, untempered_logprobs=True)),
        SampleRequest(PROMPTS[0], 2, SamplingParams(max_tokens=17, top_k=3, temperature=2.0)),
    ]
    sampling = decoder(model, ends=frozenset({END}))
    together = complete(sampling, mixed, version=4)
    assert tokens_of(together) == [tokens_of(complete(sampling, [one], version=4))[0] for one in mixed]
    assert [len(completions) for completions in together] == [2, 3, 0, 1, 2]
    assert {completion.policy_version for completions in together for completion in completions} == {4}
    untempered = [completion.untempered_logprobs for completions in together for completion in completions]
    assert [values is not None for values in untempered] == [False] * 5 + [True] + [False] * 2
    for completions in together:
        assert all(len(completion.logprobs) == len(completion.tokens) for completion in completions)


def test_no_requests_give_no_completions() -> None:
    assert complete(decoder(make("qwen3")), []) == []
    assert complete(decoder(make("qwen3")), requests(0)) == [[], [], [], []]


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
def test_identical_prompts_anywhere_in_the_call_are_run_once(name: str) -> None:
    model = make(name)
    sampling = decoder(model)
    assert sampling.path  # which is found out by running the model
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[3], PROMPTS[1]]
    with watched(model) as seen:
        complete(sampling, requests(4, prompts, max_tokens=6))
    assert seen.prompt_tokens == sum(len(PROMPTS[i]) for i in (0, 1, 3))
    assert seen.steps == [20] * 5


def test_a_prompt_is_run_once_even_if_its_rows_enter_one_after_another() -> None:
    model = make("qwen3")
    few, all_at_once = decoder(model, budget=5 * 29), decoder(model)
    assert few.path == "driven"
    crowd = [request for n in (9, 2, 1) for request in requests(n, max_tokens=20, seed=n, stop_token_ids=(3, 4, 5, 6))]
    with watched(model) as seen:
        found = complete(few, crowd)
    assert seen.prompt_tokens == sum(map(len, PROMPTS))
    assert max(seen.steps) == 7  # 7 rows of 20 tokens, and the shortest prompts once
    assert tokens_of(found) == tokens_of(complete(all_at_once, crowd))


def test_finished_rows_leave_the_batch() -> None:
    model = make("qwen3")
    sampling = decoder(model, ends=frozenset({END, 8, 9, 10}))
    assert sampling.path == "driven"
    with watched(model) as seen:
        found = complete(sampling, requests(8, PROMPTS[:2], max_tokens=40))
    lengths = [len(completion.tokens) for completions in found for completion in completions]
    assert len(set(lengths)) > 5
    # The first token of a row comes from its prompt, and each later one takes one row of one step.
    assert sum(seen.steps) == sum(lengths) - len(lengths)


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
@pytest.mark.parametrize("rows_at_once", [1, 2, 5])
def test_waiting_rows_enter_as_the_budget_allows_and_draw_what_they_would_have(name: str, rows_at_once: int) -> None:
    model = make(name)
    crowd = requests(4, max_tokens=30, seed=8, stop_token_ids=(1, 2, 3))
    budget = rows_at_once * (max(map(len, PROMPTS)) + 30)
    sampling = decoder(model, budget=budget)
    assert sampling.path
    with watched(model) as seen:
        found = complete(sampling, crowd)
    assert max(seen.steps) <= (budget - 1) // 30  # prompts are counted once on the one path, with each row on the other
    assert tokens_of(found) == tokens_of(complete(decoder(model), crowd))


def test_a_waiting_row_enters_as_soon_as_another_leaves() -> None:
    model = make("qwen3")
    sampling = decoder(model, budget=4 * (9 + 30))
    assert sampling.path
    long, short = requests(1, [PROMPTS[0]], max_tokens=30), requests(8, [PROMPTS[1]], max_tokens=3)
    with watched(model) as seen:
        complete(sampling, [*short, *long])
    assert seen.steps == [4] * 4 + [3] * 2 + [1] * 23


def test_rows_that_outgrow_their_memory_keep_what_it_holds() -> None:
    model = make("llama")
    found = complete(decoder(model), requests(2, max_tokens=CONTEXT))
    for prompt, completions in zip(PROMPTS, found, strict=True):
        for row in completions:
            assert len(row.tokens) == CONTEXT - len(prompt)
            own = plain_logits(model, prompt, row.tokens).log_softmax(-1)
            assert row.logprobs == pytest.approx(
                own.gather(1, torch.tensor(row.tokens)[:, None])[:, 0].tolist(), abs=1e-4
            )


def test_a_second_call_reuses_memory_and_draws_the_same() -> None:
    sampling = decoder(make("qwen3"))
    long, short = requests(6, max_tokens=50, seed=1), requests(2, PROMPTS[:2], max_tokens=5, seed=2)
    first = [tokens_of(complete(sampling, call)) for call in (short, long)]
    again = [tokens_of(complete(sampling, call)) for call in (short, long)]
    assert first == again


def test_weights_may_change_between_calls() -> None:
    model, other = make("qwen3"), make("qwen3", seed=1)
    sampling = decoder(model)
    before = tokens_of(complete(sampling, requests(max_tokens=12)))
    model.load_state_dict(other.state_dict())
    after = tokens_of(complete(sampling, requests(max_tokens=12), version=1))
    assert before != after == tokens_of(complete(decoder(other), requests(max_tokens=12), version=1))


def test_a_stop_string_ends_a_row_with_the_token_that_completes_it() -> None:
    sampling = decoder(make("qwen3"))
    whole = complete(sampling, requests(3, max_tokens=24, seed=6))
    for prompt, completions in zip(PROMPTS, whole, strict=True):
        text = text_of(completions[1].tokens)
        for start, size in ((4, 2), (5, 2), (7, 5), (10, 1), (20, 9)):
            stop = text[start : start + size]  # it begins or ends within a token, or spans several
            found = complete(sampling, requests(3, [prompt], max_tokens=24, seed=6, stop=("zzzz", stop)))[0]
            for row, unstopped in zip(found, completions, strict=True):
                holding = [n for n in range(1, 25) if stop in text_of(unstopped.tokens[:n])]
                assert row.tokens == unstopped.tokens[: holding[0] if holding else 24]
                assert row.stop_reason == ("stop" if holding else "length")


def test_end_and_stop_tokens_end_a_row_and_are_its_last_token() -> None:
    model = make("llama")
    free = complete(decoder(model), requests(4, max_tokens=9, seed=3))
    some = sorted({completion.tokens[4] for completions in free for completion in completions})
    ends, stops = frozenset(some[:2]), tuple(some[2:4])
    found = complete(decoder(model, ends=ends), requests(4, max_tokens=9, seed=3, stop_token_ids=stops))
    reasons = set()
    for completions, unstopped in zip(found, free, strict=True):
        for row, whole in zip(completions, unstopped, strict=True):
            at = next((n for n, token in enumerate(whole.tokens) if token in {*ends, *stops}), None)
            assert row.tokens == (whole.tokens if at is None else whole.tokens[: at + 1])
            assert row.stop_reason == ("length" if at is None else "stop")
            reasons.add(row.stop_reason)
    assert reasons == {"stop", "length"}


def test_a_completion_may_be_one_token() -> None:
    found = complete(decoder(make("gpt2")), requests(2, max_tokens=1))
    assert {len(completion.tokens) for completions in found for completion in completions} == {1}
    assert {completion.stop_reason for completions in found for completion in completions} == {"length"}


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_the_context_ends_a_completion(name: str) -> None:
    prompts = [[5] * (CONTEXT - 1), [6] * (CONTEXT - 4), [7] * 3]
    found = complete(decoder(make(name)), requests(2, prompts, max_tokens=1000))
    assert [len(completions[0].tokens) for completions in found] == [1, 4, CONTEXT - 3]
    assert {completion.stop_reason for completions in found for completion in completions} == {"length"}


def test_bfloat16_arithmetic_on_float32_weights() -> None:
    model = make("qwen3")
    with torch.autocast("cpu", torch.bfloat16):
        found = complete(decoder(model), requests(3, max_tokens=12))
        worst = 0.0
        for prompt, completions in zip(PROMPTS, found, strict=True):
            for row in completions:
                own = plain_logits(model, prompt, row.tokens).log_softmax(-1)
                reported = torch.tensor(row.logprobs)
                worst = max(
                    worst, (own.gather(1, torch.tensor(row.tokens)[:, None])[:, 0] - reported).abs().max().item()
                )
    assert 1e-5 < worst < 0.3  # rounded, and not otherwise different


def test_the_generic_path_says_why(caplog: pytest.LogCaptureFixture) -> None:
    assert decoder(make("mistral")).path == "generic"
    assert decoder(make("bloom")).path == "generic"
    by_window, by_interface = (record.getMessage() for record in caplog.records)
    assert by_window.startswith("MistralForCausalLM is sampled on the generic path, which is slower: one of its layers")
    assert by_interface.endswith("BloomForCausalLM has an attention of its own, which cannot be replaced")


def test_a_model_that_keeps_its_state_outside_the_cache_is_refused() -> None:
    torch.manual_seed(0)
    config = transformers.RecurrentGemmaConfig(
        **{**SIZES, "num_hidden_layers": 3}, lru_width=32, attention_window_size=5
    )
    with pytest.raises(ModelError, match="RecurrentGemmaForCausalLM cannot be sampled: with a cache its logits differ"):
        complete(decoder(transformers.RecurrentGemmaForCausalLM(config).eval()), requests(max_tokens=4))
