"""Readings and embeddings: the numbers of one plain forward pass, never held whole, and draws that have a name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fettle.config import AdamW, CausalLM, LocalEngine, LoRA, PolicySpec
from fettle.engine.base import Pooling, ReadRequest
from fettle.engine.local import LocalBackend, logprobs, places
from fettle.engine.local.model import load_model
from fettle.errors import ConfigError, FettleError, LossInputError, ModelError
from fettle.types import Floats, PromptReading, datum

from .conftest import capped

CPU = torch.device("cpu")
SEQUENCES = [[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20], [5], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 30, 31], [7, 9]]


def backend(folder: Path, layout: str = "auto") -> LocalBackend:
    return LocalBackend(LocalEngine.model_validate({"layout": layout}), checkpoints=folder)


@torch.no_grad()
def plain(source: str, tokens: list[int]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Log-probabilities [T - 1, V] and the states of every layer [T, H], by transformers alone."""
    module = load_model(source, device=CPU, precision="float32", trained=False).module
    output = module(input_ids=torch.tensor([tokens]), use_cache=False, output_hidden_states=True)
    return output.logits[0, :-1].log_softmax(-1), tuple(states[0] for states in output.hidden_states)


@pytest.mark.parametrize("layout", ["auto", "padded"])
@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2", "capped"])
def test_a_reading_is_what_one_forward_pass_says(
    architecture: str, layout: str, tiny: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Sequences in one call, some that begin alike; each asked for something else."""
    source = capped(0.5, tiny, tmp_path / "m") if architecture == "capped" else request.getfixturevalue(architecture)
    random = np.random.default_rng(0)
    targets = [random.integers(-1, 300, (len(tokens), 3)).astype(np.int32) for tokens in SEQUENCES]
    asked = [
        ReadRequest(tokens, top=2 * i, targets=targets[i] if i != 2 else None, draws=i)
        for i, tokens in enumerate(SEQUENCES)
    ]
    found = backend(tmp_path, layout).read(source, asked)
    for i, (tokens, read) in enumerate(zip(SEQUENCES, found, strict=True)):
        wanted, _ = plain(source, tokens)
        assert np.isnan(read.logprobs[0])
        np.testing.assert_allclose(read.logprobs[1:], wanted.gather(1, torch.tensor(tokens)[1:, None])[:, 0], atol=2e-5)
        values, ids = wanted.topk(2 * i)
        assert read.top_tokens.tolist() == [[0] * 2 * i, *ids.tolist()]
        assert np.isnan(read.top_logprobs[0]).all()
        np.testing.assert_allclose(read.top_logprobs[1:], values, atol=2e-5)
        if i == 2:
            assert read.target_logprobs.shape == (len(tokens), 0)
        else:
            of_targets = wanted.gather(1, torch.tensor(targets[i][1:]).long().clamp(min=0)).numpy()
            np.testing.assert_allclose(read.target_logprobs[1:], np.where(targets[i][1:] < 0, 0, of_targets), atol=2e-5)
            assert not read.target_logprobs[0].any()
        assert read.drawn_tokens.shape == read.drawn_logprobs.shape == (len(tokens), i)
        assert np.isnan(read.drawn_logprobs[0]).all()
        of_drawn = wanted.gather(1, torch.tensor(read.drawn_tokens[1:]).long())
        np.testing.assert_allclose(read.drawn_logprobs[1:], of_drawn, atol=2e-5)


def test_it_agrees_with_what_training_says(tiny: str, tmp_path: Path) -> None:
    engine = backend(tmp_path)
    engine.create_policy("p", PolicySpec(model=tiny, lora=LoRA(rank=4)))
    data = [datum(SEQUENCES[0], [0, *[1] * 10])]
    engine.forward_backward("p", data, CausalLM())
    engine.optim_step("p", AdamW(learning_rate=0.05))
    engine.pin("p", "now")
    (read,) = engine.read("now", [ReadRequest(SEQUENCES[0])])
    np.testing.assert_allclose(read.logprobs[1:], engine.forward("p", data, CausalLM()).logprobs[0][1:], atol=1e-5)
    assert not np.allclose(read.logprobs[1:], engine.read(tiny, [ReadRequest(SEQUENCES[0])])[0].logprobs[1:], atol=1e-3)


def drawn(engine: LocalBackend, source: str, **settings: float) -> PromptReading:
    return engine.read(source, [ReadRequest(SEQUENCES[0], draws=4, **settings)])[0]


def test_draws_depend_on_the_seed_and_the_place_and_on_nothing_else(tiny: str, tmp_path: Path) -> None:
    engine = backend(tmp_path)
    alone = drawn(engine, tiny, seed=3)
    assert np.array_equal(drawn(engine, tiny, seed=3).drawn_tokens, alone.drawn_tokens)
    assert not np.array_equal(drawn(engine, tiny, seed=4).drawn_tokens, alone.drawn_tokens)
    longer = [ReadRequest([*SEQUENCES[0], 40, 41], draws=4, seed=3), ReadRequest(SEQUENCES[3], draws=1, seed=3)]
    assert np.array_equal(engine.read(tiny, longer)[0].drawn_tokens[:11], alone.drawn_tokens)


def test_draws_follow_the_tempered_distribution_and_are_told_at_1(tiny: str, tmp_path: Path) -> None:
    engine = backend(tmp_path)
    (read,) = engine.read(tiny, [ReadRequest([8, 9], draws=4000, temperature=0.2, seed=1)])
    logprobs_at_1, _ = plain(tiny, [8, 9])
    expected = (logprobs_at_1[0] / 0.2).softmax(-1).double().numpy()
    counts = np.bincount(read.drawn_tokens[1], minlength=len(expected))
    likely = expected * 4000 > 5
    observed, wanted = [*counts[likely], counts[~likely].sum()], [*expected[likely], expected[~likely].sum()]
    assert stats.chisquare(observed, np.array(wanted) / sum(wanted) * 4000).pvalue > 1e-3
    np.testing.assert_allclose(read.drawn_logprobs[1], logprobs_at_1[0].numpy()[read.drawn_tokens[1]], atol=2e-5)


def test_at_temperature_0_the_likeliest_is_drawn(tiny: str, tmp_path: Path) -> None:
    (read,) = backend(tmp_path).read(tiny, [ReadRequest(SEQUENCES[0], top=1, draws=2, temperature=0.0)])
    assert np.array_equal(read.drawn_tokens, np.repeat(read.top_tokens, 2, axis=1))


def test_the_logits_of_a_long_sequence_are_never_held_whole(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = backend(tmp_path)
    asked = [ReadRequest(list(range(5, 105)), top=3, draws=2)]
    (whole,) = engine.read(tiny, asked)
    monkeypatch.setattr(logprobs, "CHUNK_ROWS", 7)
    seen: list[int] = []
    fill = places._fill
    monkeypatch.setattr(places, "_fill", lambda *given: (seen.append(len(given[3])), fill(*given)))
    (chunked,) = engine.read(tiny, asked)
    assert max(seen) == 7
    assert sum(seen) == 99
    assert np.array_equal(chunked.top_tokens, whole.top_tokens)
    assert np.array_equal(chunked.drawn_tokens, whole.drawn_tokens)
    np.testing.assert_allclose(chunked.logprobs, whole.logprobs, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (ReadRequest([]), LossInputError, "sequence 1 is empty"),
        (ReadRequest([600]), LossInputError, "sequence 1 holds token id 600"),
        (ReadRequest([5] * 129), ModelError, "sequence 1 has 129 tokens, and the context"),
        (ReadRequest([5, 6], top=513), ConfigError, "asks for the 513 likeliest tokens: from 0 to all 328"),
        (ReadRequest([5, 6], draws=-1), ConfigError, "reading 1 asks for -1 draws"),
        (ReadRequest([5, 6], draws=1, temperature=-1), ConfigError, "at temperature -1"),
        (ReadRequest([5, 6], targets=np.zeros((3, 1), np.int32)), LossInputError, r"shape \[3, 1\] .* beside 2 tokens"),
        (ReadRequest([5, 6], targets=np.zeros((2, 1))), LossInputError, "type float64"),
        (ReadRequest([5, 6], targets=np.full((2, 1), 512)), LossInputError, "targets of reading 1 holds token id 512"),
        (ReadRequest([5, 6], targets=np.full((2, 1), -2)), LossInputError, "targets of reading 1 hold -2"),
    ],
)
def test_what_cannot_be_read_is_named(
    asked: ReadRequest, error: type[FettleError], words: str, tiny: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        backend(tmp_path).read(tiny, [ReadRequest([5, 6]), asked])


def pooled(states: torch.Tensor, pooling: str) -> Floats:
    found: Floats = {"mean": states.mean(0), "last_token": states[-1], "cls_token": states[0]}[pooling].numpy()
    return found


@pytest.mark.parametrize("layout", ["auto", "padded"])
@pytest.mark.parametrize("architecture", ["tiny", "llama", "gpt2"])
def test_an_embedding_is_the_states_of_one_layer(
    architecture: str, layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source, engine = request.getfixturevalue(architecture), backend(tmp_path, layout)
    poolings: tuple[Pooling, ...] = ("mean", "last_token", "cls_token")
    expected = [plain(source, tokens)[1] for tokens in SEQUENCES]
    for pooling in poolings:
        for layer in (0, 1, 2, -1, -3):
            found = engine.embed(source, SEQUENCES, layer=layer, pooling=pooling)
            for states, vector in zip(expected, found, strict=True):
                assert len(states) == 3
                np.testing.assert_allclose(vector, pooled(states[layer], pooling), atol=2e-5)


def test_an_embedding_is_of_the_weights_that_are_named(tiny: str, tmp_path: Path) -> None:
    engine = backend(tmp_path)
    engine.create_policy("p", PolicySpec(model=tiny))
    engine.pin("p", "then")
    engine.forward_backward("p", [datum(SEQUENCES[0], [0, *[1] * 10])], CausalLM())
    engine.optim_step("p", AdamW(learning_rate=0.05))
    engine.pin("p", "now")
    then, now, base = (engine.embed(w, [[5, 6]], layer=-1, pooling="mean")[0] for w in ("then", "now", tiny))
    np.testing.assert_allclose(then, base, atol=1e-6)
    assert not np.allclose(now, base, atol=1e-3)


def test_a_layer_or_pooling_that_is_not_there_is_named(tiny: str, tmp_path: Path) -> None:
    engine = backend(tmp_path)
    for layer in (3, -4):
        with pytest.raises(ConfigError, match=f"layer {layer} was asked for, and .* has 2: 0 to 2, or -1"):
            engine.embed(tiny, [[5]], layer=layer, pooling="mean")
    with pytest.raises(ConfigError, match="pooling 'max' is none of mean, last_token, cls_token"):
        engine.embed(tiny, [[5]], layer=-1, pooling="max")
