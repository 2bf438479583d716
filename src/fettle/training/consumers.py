"""Who reads each setting: the module, below ``fettle``. A setting that nobody reads is an error of the plan."""

from collections.abc import Mapping

from fettle import config as c
from fettle.config import Frozen

RL, SFT, SESSION, CREDIT = "training.rl", "training.sft", "training.session", "training.credit"
DRAWING, LEARNING = "training.drawing", "training.learning"
PREFERENCE, CRITIC, TRUST, LEARNED = "training.preference", "training.critic", "training.trust", "training.learned"
STAGES, SOURCES, SCHEDULE = "cli.stages", "cli.sources", "training.schedule"
MODEL, TINY = "engine.local.policy", "engine.local.tiny"

OFFLINE: Mapping[str, str] = {
    **dict.fromkeys(
        ("seed", "policy", "loss", "steps", "batch_size", "max_tokens", "optimizer", "schedule"), PREFERENCE
    ),
    **dict.fromkeys(("engine", "data", "checkpoints"), STAGES),
    "name": "cli.build",
    "evaluation": PREFERENCE,
}

CONSUMERS: Mapping[type[Frozen], Mapping[str, str]] = {
    c.RLRun: {
        **dict.fromkeys(("environments", "groups_per_step", "group_size", "dynamic_sampling"), DRAWING),
        **dict.fromkeys(("seed", "sampling"), DRAWING),
        **dict.fromkeys(("loss", "minibatches", "optimizer", "schedule"), LEARNING),
        **dict.fromkeys(("steps", "max_staleness"), RL),
        **dict.fromkeys(("advantage", "reduction", "overlong"), CREDIT),
        **dict.fromkeys(("epochs", "mask_truncated", "correction", "planning"), LEARNING),
        **dict.fromkeys(("rehearsal", "teacher", "replay"), LEARNING),
        "critic": CRITIC,
        "trust_region": TRUST,
        "kl_control": TRUST,
        "reward_model": LEARNED,
        "reference": RL,
        "name": "cli.build",
        "preset": "config.rl",
        "policy": RL,
        "engine": STAGES,
        "evaluation": RL,
        "checkpoints": STAGES,
    },
    c.SFTRun: {
        **dict.fromkeys(("seed", "policy", "steps", "batch_size", "max_tokens", "optimizer", "schedule"), SFT),
        **dict.fromkeys(("targets", "weighting"), SFT),
        **dict.fromkeys(("engine", "data", "checkpoints"), STAGES),
        "name": "cli.build",
        "evaluation": SFT,
    },
    c.Targets: dict.fromkeys(("actions", "observations"), SFT),
    c.RewardWeighting: dict.fromkeys(("kind", "temperature"), SFT),
    c.PreferenceRun: {**OFFLINE, "reference": PREFERENCE},
    c.RewardModelRun: OFFLINE,
    c.Pipeline: {"name": "cli.build", "stages": "training.pipeline"},
    c.PolicySpec: {
        "model": STAGES,
        "lora": MODEL,
        "seed": MODEL,
        "head": MODEL,
        **dict.fromkeys(("precision", "quantization"), "engine.local.backend"),
    },
    c.LoRA: dict.fromkeys(("rank", "alpha", "dropout", "targets"), "engine.local.lora"),
    c.TinyModel: dict.fromkeys(("hidden", "layers", "heads", "context", "vocabulary", "seed"), TINY),
    c.LocalEngine: dict.fromkeys(
        ("device", "threads", "train_tokens", "sample_tokens", "layout", "frozen_gib"), "engine.local.backend"
    ),
    c.AdamW: dict.fromkeys(
        ("learning_rate", "beta1", "beta2", "eps", "weight_decay", "clip_norm"), "engine.local.optimizer"
    ),
    **{kind: dict.fromkeys(("warmup_steps", "final"), SCHEDULE) for kind in (c.Constant, c.Linear, c.Cosine)},
    c.Sampling: dict.fromkeys(("max_tokens", "temperature", "stop"), DRAWING),
    c.Evaluation: {
        **dict.fromkeys(("every", "tasks", "temperature", "samples"), RL),
        "patience": STAGES,
        "target": STAGES,
    },
    c.HeldoutLoss: {"every": SFT, "patience": STAGES},
    c.HeldoutPairs: {"every": PREFERENCE, "patience": STAGES, "target": STAGES},
    c.Checkpoints: dict.fromkeys(("every", "keep"), SESSION),
    c.DynamicSampling: {"max_rounds": DRAWING},
    c.Overlong: {"buffer": CREDIT},
    c.Critic: dict.fromkeys(
        ("place", "model", "gamma", "gae_lambda", "normalize", "value", "optimizer", "warmup_steps"), CRITIC
    ),
    c.LearnedReward: dict.fromkeys(("model", "scale", "clip", "monitor"), LEARNED),
    c.Monitor: dict.fromkeys(("window", "tolerance", "stop"), LEARNED),
    c.KLControl: dict.fromkeys(("target", "kind", "horizon"), TRUST),
    c.QuadraticPenalty: dict.fromkeys(("limit", "coefficient", "of"), TRUST),
    c.AdaptivePenalty: dict.fromkeys(("target", "coefficient", "of"), TRUST),
    c.LagrangianPenalty: dict.fromkeys(("limit", "rate", "of"), TRUST),
    c.HardLimit: dict.fromkeys(("limit", "of"), TRUST),
    c.Correction: dict.fromkeys(("kind", "cap", "level"), CREDIT),
    c.Planning: dict.fromkeys(("alpha", "phrases"), CREDIT),
    c.Rehearsal: dict.fromkeys(("data", "batch_size", "coefficient"), RL),
    c.Teacher: dict.fromkeys(("model", "coefficient"), RL),
    c.Replay: dict.fromkeys(("capacity", "groups", "max_age"), RL),
    c.KL: dict.fromkeys(("coefficient", "estimator", "place"), "training.credit"),
    c.ReasoningGym: {
        **dict.fromkeys(
            ("task", "settings", "system", "partial_credit", "seed", "heldout"), "environments.reasoning_gym"
        ),
        "weight": DRAWING,
    },
    c.Arithmetic: {
        **dict.fromkeys(("min_terms", "max_terms", "digits", "system", "seed", "heldout"), "environments.arithmetic"),
        "weight": DRAWING,
    },
    c.JSONL: {
        **dict.fromkeys(("path", "reward", "answer_in", "system", "seed", "heldout"), "environments.jsonl"),
        "weight": DRAWING,
    },
    c.Conversations: dict.fromkeys(("path", "heldout", "seed"), SOURCES),
    c.WorkedSums: dict.fromkeys(("tasks", "slips", "size", "seed"), SOURCES),
    c.Episodes: dict.fromkeys(("path", "heldout", "seed", "min_reward"), SOURCES),
    **{kind: dict.fromkeys(("path", "heldout", "seed"), SOURCES) for kind in (c.Preferences, c.Ratings)},
    c.WorkedPairs: dict.fromkeys(("tasks", "size", "malformed", "seed"), SOURCES),
}
"""The module, below ``fettle``, that reads each setting. A test looks the reading up in the source."""
