"""The same losses as TRL's trainers, on the same models and batches: value, gradient and metrics.

TRL makes the batch and its loss; ours are made from logits of the same model, taken here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from fettle.config import CISPO, DPO, GSPO, KL, KTO, ORPO, PPO, CausalLM, LossConfig, RewardModeling, SimPO
from fettle.losses import REDUCTIONS, evaluate

trl = pytest.importorskip("trl", reason="TRL is not installed: its trainers are not compared with")
datasets = pytest.importorskip("datasets", reason="datasets is not installed: TRL's trainers cannot be fed")
trl_orpo = pytest.importorskip("trl.experimental.orpo", reason="this TRL has no ORPO")
trl_cpo = pytest.importorskip("trl.experimental.cpo", reason="this TRL has no CPO, and so no SimPO")

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own, of what it will change

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]
PAIRS = [
    {"prompt": "a b", "chosen": " c d e", "rejected": " f"},
    {"prompt": "c", "chosen": " a", "rejected": " b b k l"},
    {"prompt": "d e f", "chosen": " g h", "rejected": " i j"},
    {"prompt": "k", "chosen": " l m n o", "rejected": " p a"},
]
PLAIN = {
    "per_device_train_batch_size": 4,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 10**9,
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<end>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def shape() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        num_labels=1,
    )


def language_model(seed: int) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(shape())


def dataset(rows: list[dict[str, Any]]) -> Any:
    return datasets.Dataset.from_list(rows)


def settings(kind: Any, folder: Path, **given: Any) -> Any:
    known = kind.__dataclass_fields__
    return kind(output_dir=str(folder), **{name: x for name, x in PLAIN.items() if name in known}, **given)


def batch_of(trainer: Any) -> dict[str, Tensor]:
    trainer.model.eval()  # so that no accumulation is divided by
    return dict(next(iter(trainer.get_train_dataloader())))


def reported(trainer: Any) -> dict[str, float]:
    """What TRL logged last."""
    return {name: values[-1] for name, values in trainer._metrics["eval"].items()}


def token_logprobs(model: torch.nn.Module, tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """Of each token under the full softmax, beside the token [B, T]; 0 at the first."""
    logits = model(input_ids=tokens, attention_mask=attention_mask, use_cache=False).logits
    told = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(told, (1, 0))


def in_turn(rows: Tensor) -> Tensor:
    """Chosen and rejected in turn, of TRL's batches that have all chosen first."""
    return torch.stack(rows.chunk(2), 1).flatten(0, 1)


def mean(values: Tensor) -> Tensor:
    return values.sum() / len(values)


def assert_same(model: torch.nn.Module, theirs: Tensor, ours: Tensor) -> None:
    """In value, and in the gradient of every parameter."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted, found = (torch.autograd.grad(x, parameters, retain_graph=True) for x in (theirs, ours))
    assert max(x.abs().max() for x in wanted) > 1e-4
    for want, got in zip(wanted, found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


REWARDS = {
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "preference_accuracy": "rewards/accuracies",
}


def assert_same_rewards(theirs: Mapping[str, float], ours: Mapping[str, Tensor]) -> None:
    expected = {name: theirs[key] for name, key in REWARDS.items()}
    assert {name: ours[name].mean().item() for name in REWARDS} == pytest.approx(expected, rel=1e-4, abs=1e-6)


def of_pairs(config: LossConfig, batch: Mapping[str, Tensor], model: Any, reference: Any = None) -> tuple[Tensor, Any]:
    tokens, attention = batch["input_ids"], batch["attention_mask"]
    inputs = {"loss_mask": in_turn(batch["completion_mask"]).float()}
    if reference is not None:
        with torch.no_grad():
            inputs["reference_logprobs"] = in_turn(token_logprobs(reference, tokens, attention))
    return evaluate(config, {"logprobs": in_turn(token_logprobs(model, tokens, attention))}, inputs)


@pytest.fixture(scope="module")
def dpo_trainer(tokenizer, tmp_path_factory) -> Any:
    return trl.DPOTrainer(
        language_model(0),
        language_model(1),
        args=settings(trl.DPOConfig, tmp_path_factory.mktemp("dpo")),
        train_dataset=dataset(PAIRS),
        processing_class=tokenizer,
    )


DPO_KINDS = [
    ("sigmoid", {}),
    ("robust", {"variant": "robust", "label_smoothing": 0.2}),
    ("ipo", {"variant": "ipo", "length_normalized": True}),
    ("hinge", {"variant": "hinge"}),
    ("sigmoid_norm", {"length_normalized": True}),
]


@pytest.mark.parametrize(("name", "variant"), DPO_KINDS, ids=[name for name, _ in DPO_KINDS])
def test_dpo_and_its_variants(dpo_trainer, name, variant):
    config = DPO(beta=0.1, **variant)
    dpo_trainer.loss_types, dpo_trainer.loss_weights = [name], [1.0]
    dpo_trainer.beta, dpo_trainer.label_smoothing = config.beta, config.label_smoothing
    batch = batch_of(dpo_trainer)
    theirs = dpo_trainer.compute_loss(dpo_trainer.model, batch)
    values, metrics = of_pairs(config, batch, dpo_trainer.model, dpo_trainer.ref_model)
    assert_same(dpo_trainer.model, theirs, mean(values))
    if not config.length_normalized:
        assert_same_rewards(reported(dpo_trainer), metrics)


def test_conservative_dpo(dpo_trainer):
    """TRL smooths labels in ``aot``, which sorts log-ratios over a batch: of one pair there is nothing to sort."""
    config = DPO(beta=0.3, label_smoothing=0.1)
    dpo_trainer.loss_types, dpo_trainer.loss_weights = ["aot"], [1.0]
    dpo_trainer.beta, dpo_trainer.label_smoothing = config.beta, config.label_smoothing
    batch = batch_of(dpo_trainer)
    values, _ = of_pairs(config, batch, dpo_trainer.model, dpo_trainer.ref_model)
    for pair in range(len(PAIRS)):
        alone = {name: rows[[pair, pair + len(PAIRS)]] for name, rows in batch.items()}
        assert_same(dpo_trainer.model, dpo_trainer.compute_loss(dpo_trainer.model, alone), values[pair])


@pytest.fixture(scope="module")
def kto_trainer(tokenizer, tmp_path_factory) -> Any:
    rated = [
        {"prompt": pair["prompt"], "completion": pair[which], "label": which == "chosen"}
        for pair, which in zip(PAIRS, ["chosen", "chosen", "rejected", "chosen"], strict=True)
    ]
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    return trl.KTOTrainer(
        language_model(0),
        language_model(1),
        args=settings(trl.KTOConfig, tmp_path_factory.mktemp("kto"), beta=0.3, **weights),
        train_dataset=dataset(rated),
        processing_class=tokenizer,
    )


def test_kto_with_the_baseline_that_trl_measures(kto_trainer):
    batch, model = batch_of(kto_trainer), kto_trainer.model
    theirs = kto_trainer.compute_loss(model, batch)

    def totals(of: Any, prefix: str) -> Tensor:
        logprobs = token_logprobs(of, batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"])
        return (logprobs * batch[f"{prefix}completion_mask"]).sum(-1)

    with torch.no_grad():
        baseline = (totals(model, "KL_") - totals(kto_trainer.ref_model, "KL_")).mean().clamp(min=0)
        tokens, attention = batch["input_ids"], batch["attention_mask"]
        inputs = {"reference_logprobs": token_logprobs(kto_trainer.ref_model, tokens, attention)}
    inputs |= {"loss_mask": batch["completion_mask"].float(), "preferred": torch.as_tensor(batch["label"]).float()}
    inputs |= {"kl_baseline": baseline.expand(len(tokens))}
    said = {"logprobs": token_logprobs(model, tokens, attention)}
    values, _ = evaluate(KTO(beta=0.3, undesirable_weight=1.5), said, inputs)
    assert_same(model, theirs, mean(values))


def paired(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """A batch of ORPO's or CPO's trainer as the others are: chosen rows, then rejected."""
    width = max(batch[f"{which}_input_ids"].shape[1] for which in ("chosen", "rejected"))

    def joined(name: str, padding: int) -> Tensor:
        halves = [batch[f"{which}_{name}"] for which in ("chosen", "rejected")]
        return torch.cat([torch.nn.functional.pad(x, (0, width - x.shape[1]), value=padding) for x in halves])

    return {
        "input_ids": joined("input_ids", 0),
        "attention_mask": joined("attention_mask", 0),
        "completion_mask": (joined("labels", -100) != -100).long(),
    }


def test_orpo(tokenizer, tmp_path):
    """TRL's likelihood is over the prompt too, and a mean over the batch's tokens: prompts here are one token, before
    which nothing stands, and the chosen are of one length."""
    rows = [{**pair, "prompt": "a", "chosen": " c d e"} for pair in PAIRS]
    config = settings(trl_orpo.ORPOConfig, tmp_path, beta=0.3, max_length=32)
    trainer = trl_orpo.ORPOTrainer(
        language_model(0), args=config, train_dataset=dataset(rows), processing_class=tokenizer
    )
    batch = batch_of(trainer)
    theirs, told = trainer.get_batch_loss_metrics(trainer.model, batch, train_eval="train")
    values, metrics = of_pairs(ORPO(beta=0.3), paired(batch), trainer.model)
    assert_same(trainer.model, theirs, mean(values))
    assert metrics["nll"].mean().item() == pytest.approx(told["nll_loss"], rel=1e-5)
    assert_same_rewards(told, metrics)


def test_simpo(tokenizer, tmp_path):
    given = {"beta": 2.0, "loss_type": "simpo", "simpo_gamma": 0.7, "cpo_alpha": 0.0, "max_length": 32}
    config = settings(trl_cpo.CPOConfig, tmp_path, **given)
    trainer = trl_cpo.CPOTrainer(
        language_model(0), args=config, train_dataset=dataset(PAIRS), processing_class=tokenizer
    )
    batch = batch_of(trainer)
    theirs, told = trainer.get_batch_loss_metrics(trainer.model, batch, train_eval="train")
    values, metrics = of_pairs(SimPO(beta=2.0, target_margin=0.7), paired(batch), trainer.model)
    assert_same(trainer.model, theirs, mean(values))
    assert_same_rewards(told, metrics)


@pytest.mark.parametrize(("margins", "centering"), [(None, 0.0), (None, 0.01), ([0.5, 0.0, 1.0, 2.0], 0.01)])
def test_reward_modeling_with_centering_and_margins(tokenizer, tmp_path, margins, centering):
    torch.manual_seed(0)
    rows = [{**pair, **({"margin": margins[i]} if margins else {})} for i, pair in enumerate(PAIRS)]
    trainer = trl.RewardTrainer(
        Qwen3ForSequenceClassification(shape()),
        args=settings(trl.RewardConfig, tmp_path, center_rewards_coefficient=centering or None),
        train_dataset=dataset(rows),
        processing_class=tokenizer,
    )
    batch, model = batch_of(trainer), trainer.model
    attention = batch["attention_mask"]
    hidden = model.model(batch["input_ids"], attention_mask=attention).last_hidden_state
    last = hidden[torch.arange(len(hidden)), attention.sum(-1) - 1]
    said = {"scores": in_turn(model.score(last)[:, 0])}
    inputs = {"loss_mask": in_turn(attention).float()}
    if margins:
        inputs["margin"] = batch["margin"].repeat_interleave(2)
    values, metrics = evaluate(RewardModeling(centering=centering), said, inputs)
    assert_same(model, trainer.compute_loss(model, batch), mean(values))
    told = reported(trainer)
    assert metrics["preference_accuracy"].mean().item() == pytest.approx(told["accuracy"])
    assert metrics["reward_margin"].mean().item() == pytest.approx(told["margin"], rel=1e-5)


@pytest.fixture(scope="module")
def grpo_trainer(tokenizer, tmp_path_factory) -> Any:
    # The KL of the paper: by default TRL multiplies it by the ratio.
    given = {"num_generations": 2, "max_completion_length": 8, "use_bias_correction_kl": False}
    return trl.GRPOTrainer(
        language_model(0),
        reward_funcs=lambda completions, **_: [0.0 for _ in completions],
        args=settings(trl.GRPOConfig, tmp_path_factory.mktemp("grpo"), **given),
        train_dataset=dataset([{"prompt": "a b"}, {"prompt": "c"}]),
        processing_class=tokenizer,
    )


def drawn(model: Any, spread: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One batch as TRL's loss takes it, and as ours does; the sampler and the reference lie about the policy."""
    random = torch.Generator().manual_seed(0)
    prompts = torch.tensor([[0, 0, 3], [0, 4, 5], [2, 6, 7], [0, 8, 9]])
    completions = torch.randint(2, len(WORDS) + 2, (4, 5), generator=random)
    lengths = torch.tensor([5, 2, 4, 1])
    mask = (torch.arange(5) < lengths[:, None]).long()
    completions = completions * mask
    tokens = torch.cat([prompts, completions], 1)
    attention = torch.cat([(prompts != 0).long(), mask], 1)
    with torch.no_grad():
        near = token_logprobs(model, tokens, attention)[:, -5:]
    old, reference = (near + spread * torch.randn(4, 5, generator=random) for _ in range(2))
    advantages = torch.tensor([1.2, -0.7, -0.4, 0.9])
    theirs = {"prompt_ids": prompts, "prompt_mask": (prompts != 0).long(), "completion_ids": completions}
    theirs |= {"completion_mask": mask, "advantages": advantages, "num_items_in_batch": mask.sum()}
    theirs |= {"old_per_token_logps": old, "ref_per_token_logps": reference}

    def full(values: Tensor) -> Tensor:
        return torch.nn.functional.pad(values.float(), (3, 0))

    ours = {"tokens": tokens, "attention_mask": attention, "loss_mask": full(mask), "sampling_logprobs": full(old)}
    ours |= {"reference_logprobs": full(reference), "advantages": full(advantages[:, None].expand(4, 5))}
    return theirs, ours


CLIP = {"clip_low": 0.1, "clip_high": 0.3}
GRPO_KINDS = {
    "grpo": (PPO(**CLIP), "sequence_mean"),
    "grpo with k3": (PPO(**CLIP, kl=KL(coefficient=0.2)), "sequence_mean"),
    "bnpo": (PPO(**CLIP), "token_mean"),
    "dapo": (PPO(**CLIP), "token_mean"),
    "dr_grpo": (PPO(**CLIP), "fixed_length"),
    "gspo": (GSPO(**CLIP), "sequence_mean"),
    "cispo": (CISPO(ratio_high=1.2), "token_mean"),
}


@pytest.mark.parametrize("name", GRPO_KINDS)
def test_grpo_and_its_kin_under_their_reductions(grpo_trainer, name):
    config, reduction = GRPO_KINDS[name]
    grpo_trainer.model.eval()
    grpo_trainer.loss_type = "grpo" if name in ("grpo with k3", "gspo") else name
    grpo_trainer.importance_sampling_level = "sequence" if name == "gspo" else "token"
    grpo_trainer.beta = config.kl.coefficient if config.kl else 0.0
    grpo_trainer.epsilon_low, grpo_trainer.epsilon_high = CLIP["clip_low"], CLIP["clip_high"]
    if isinstance(config, CISPO):
        grpo_trainer.epsilon_high = config.ratio_high
    given, ours = drawn(grpo_trainer.model, spread=0.4)
    theirs = grpo_trainer.compute_loss(grpo_trainer.model, given)

    said = {"logprobs": token_logprobs(grpo_trainer.model, ours["tokens"], ours["attention_mask"])}
    values, metrics = evaluate(config, said, ours)
    fixed = {"length": grpo_trainer.max_completion_length} if reduction == "fixed_length" else {}
    weights = REDUCTIONS[reduction]([mask.numpy() for mask in ours["loss_mask"]], **fixed)
    assert_same(grpo_trainer.model, theirs, (values * torch.tensor(np.array(weights))).sum())
    trained = ours["loss_mask"] > 0
    told = reported(grpo_trainer)
    assert metrics["clip_fraction"][trained].any()
    if name not in ("cispo", "gspo"):
        for metric, key in {
            "clip_fraction": "region",
            "clip_fraction_low": "low",
            "clip_fraction_high": "high",
        }.items():
            assert metrics[metric][trained].mean().item() == pytest.approx(told[f"clip_ratio/{key}_mean"])
    if config.kl:
        assert metrics["kl_k3"][trained].mean().item() == pytest.approx(told["kl"], rel=1e-5)


def test_supervised_cross_entropy(tokenizer, tmp_path):
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]
    trainer = trl.SFTTrainer(
        language_model(0),
        args=settings(trl.SFTConfig, tmp_path, completion_only_loss=True),
        train_dataset=dataset(rows),
        processing_class=tokenizer,
    )
    batch = batch_of(trainer)
    mask = (batch["labels"] != -100).float()
    said = {"logprobs": token_logprobs(trainer.model, batch["input_ids"], batch["attention_mask"])}
    values, _ = evaluate(CausalLM(), said, {"loss_mask": mask})
    weights = REDUCTIONS["token_mean"]([row.numpy() for row in mask])
    ours = (values * torch.tensor(np.array(weights))).sum()
    assert_same(trainer.model, trainer.compute_loss(trainer.model, batch), ours)
    assert 0 < mask.sum() < batch["attention_mask"].sum()
