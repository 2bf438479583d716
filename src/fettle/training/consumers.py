"""Who reads each setting: the module, below ``fettle``. A setting that nobody reads is an error of the plan."""

from collections.abc import Mapping

from fettle import config as c
from fettle.config import Frozen

RL, SFT, SESSION, CREDIT = "training.rl", "training.sft", "training.session", "training.credit"
DRAWING, LEARNING, PLAYERS = "training.drawing", "training.learning", "training.players"
OFFLINE, PREFERENCE = "training.offline", "training.preference"
CRITIC, TRUST, LEARNED = "training.critic", "training.trust", "training.learned"
STAGES, SOURCES, SCHEDULE = "cli.stages", "cli.sources", "training.schedule"
TRACKERS = "cli.trackers"
ADAPTERS = "environments.adapters."
MODEL, TINY = "engine.local.policy", "engine.local.tiny"

ON_TORCH: Mapping[str, str] = dict.fromkeys(
    ("device", "threads", "sampling_threads", "train_tokens", "sample_tokens", "layout", "frozen_gib"),
    "engine.local.backend",
) | {"gpu_ids": "config.devices"}
COMPARED: Mapping[str, str] = {
    **dict.fromkeys(("seed", "policy", "loss", "steps", "batch_size"), PREFERENCE),
    **dict.fromkeys(("max_tokens", "optimizer", "schedule", "evaluation"), OFFLINE),
    **dict.fromkeys(("engine", "data", "checkpoints", "profile"), STAGES),
    "trackers": TRACKERS,
    "name": "cli.build",
}

CONSUMERS: Mapping[type[Frozen], Mapping[str, str]] = {
    c.RLRun: {
        **dict.fromkeys(("environments", "groups_per_step", "group_size", "dynamic_sampling"), DRAWING),
        **dict.fromkeys(("seed", "sampling", "limits"), DRAWING),
        **dict.fromkeys(("minibatches", "epochs", "schedule"), "training.updates"),
        **dict.fromkeys(("loss", "optimizer"), LEARNING),
        **dict.fromkeys(("steps", "max_staleness"), RL),
        **dict.fromkeys(("advantage", "reduction", "overlong", "mask_truncated"), CREDIT),
        "correction": LEARNING,
        **dict.fromkeys(("planning", "rehearsal", "teacher", "replay"), RL),
        "critic": CRITIC,
        "trust_region": TRUST,
        "kl_control": TRUST,
        "reward_model": LEARNED,
        "reference": RL,
        "players": PLAYERS,
        "in_flight": DRAWING,
        "environment_workers": STAGES,
        "name": "cli.build",
        "preset": "config.rl",
        "policy": RL,
        "engine": STAGES,
        **dict.fromkeys(("evaluation", "alarms"), RL),
        "checkpoints": STAGES,
        "profile": STAGES,
        "trackers": TRACKERS,
    },
    c.SFTRun: {
        **dict.fromkeys(("seed", "policy", "steps", "batch_size"), SFT),
        **dict.fromkeys(("max_tokens", "optimizer", "schedule", "evaluation"), OFFLINE),
        **dict.fromkeys(("targets", "weighting"), SFT),
        **dict.fromkeys(("engine", "data", "checkpoints", "profile"), STAGES),
        "trackers": TRACKERS,
        "name": "cli.build",
    },
    c.Targets: dict.fromkeys(("actions", "observations"), SFT),
    c.RewardWeighting: dict.fromkeys(("kind", "temperature"), SFT),
    c.PreferenceRun: {**COMPARED, "reference": PREFERENCE},
    c.RewardModelRun: COMPARED,
    c.Pipeline: {"name": "cli.build", "stages": "training.pipeline"},
    c.PolicySpec: {
        "model": STAGES,
        "lora": MODEL,
        "seed": MODEL,
        "head": MODEL,
        **dict.fromkeys(("precision", "quantization"), "engine.local.backend"),
    },
    c.LoRA: dict.fromkeys(("rank", "alpha", "dropout", "targets"), "engine.local.lora"),
    c.TinyModel: dict.fromkeys(("hidden", "layers", "heads", "context", "rope_theta", "vocabulary", "seed"), TINY),
    c.LocalEngine: ON_TORCH,
    c.RayEngine: {
        **ON_TORCH,
        **dict.fromkeys(("workers", "repeated_seconds", "sharded"), "cluster.backend"),
        "address": "cluster.session",
        **dict.fromkeys(("start_seconds", "silent_seconds", "labels"), "cluster.ranks"),
        "samplers": "cluster.opened",
    },
    c.LaunchedEngine: {**ON_TORCH, "sharded": "cluster.launched", "start_seconds": "cli.launching"},
    c.ActorSamplers: {
        **dict.fromkeys(("count", "threads", "transfer", "labels"), "cluster.actors"),
        "parity": "cluster.opened",
    },
    c.VLLMSamplers: {**dict.fromkeys(("urls", "key_env"), "cluster.vllm"), "parity": "cluster.opened"},
    c.ServiceEngine: dict.fromkeys(("url", "key_env", "key_file", "patience"), "cli.engines"),
    c.AdamW: dict.fromkeys(
        ("learning_rate", "beta1", "beta2", "eps", "weight_decay", "clip_norm"), "engine.local.optimizer"
    ),
    **{kind: dict.fromkeys(("warmup_steps", "final"), SCHEDULE) for kind in (c.Constant, c.Linear, c.Cosine)},
    c.Sampling: dict.fromkeys(("max_tokens", "temperature", "stop"), DRAWING),
    c.Limits: {
        **dict.fromkeys(("turns", "tokens", "seconds"), "rollouts.conversation"),
        "step_seconds": "rollouts.episode",
        "failed_share": DRAWING,
    },
    c.Evaluation: {
        **dict.fromkeys(("every", "tasks", "temperature", "samples"), RL),
        "half": STAGES,
        "patience": STAGES,
        "target": STAGES,
    },
    c.HeldoutLoss: {"every": OFFLINE, "half": STAGES, "patience": STAGES},
    c.HeldoutPairs: {"every": OFFLINE, "half": STAGES, "patience": STAGES, "target": STAGES},
    c.Checkpoints: dict.fromkeys(("every", "keep"), SESSION),
    c.MLflow: dict.fromkeys(("uri", "experiment", "traces", "registration", "parent"), TRACKERS),
    c.Registration: dict.fromkeys(("name", "alias", "checkpoint"), TRACKERS),
    c.WandB: dict.fromkeys(("project", "entity", "url"), TRACKERS),
    c.TensorBoard: {"folder": TRACKERS},
    c.Prometheus: {"address": TRACKERS},
    c.OTLP: dict.fromkeys(("endpoint", "protocol"), TRACKERS),
    c.Datadog: dict.fromkeys(("address", "tags"), TRACKERS),
    c.Events: {"url": TRACKERS},
    c.DynamicSampling: {"max_rounds": DRAWING},
    c.Overlong: {"buffer": CREDIT},
    c.Critic: dict.fromkeys(
        ("place", "model", "gamma", "gae_lambda", "normalize", "value", "optimizer", "warmup_steps"), CRITIC
    ),
    c.LearnedReward: {**dict.fromkeys(("model", "scale", "clip"), LEARNED), "monitor": RL},
    c.Monitor: {**dict.fromkeys(("window", "tolerance"), "training.monitor"), "stop": STAGES},
    c.Alarms: dict.fromkeys(("window", "fall", "length", "repetition"), "training.watching"),
    c.FrozenPlayer: {"model": PLAYERS},
    c.PastPlayer: {"every": PLAYERS},
    c.OwnPlayer: dict.fromkeys(("policy", "optimizer"), PLAYERS),
    **{kind: {"tokens": "rollouts.following"} for kind in (c.Keep, c.Abort)},
    c.RayWorkers: {
        **dict.fromkeys(
            ("count", "episodes", "joined_seconds", "cpus", "labels", "start_seconds"), "cluster.environments"
        ),
        "address": "cluster.session",
    },
    c.KLControl: dict.fromkeys(("target", "kind", "horizon"), TRUST),
    c.QuadraticPenalty: dict.fromkeys(("limit", "coefficient", "of"), TRUST),
    c.AdaptivePenalty: dict.fromkeys(("target", "coefficient", "of"), TRUST),
    c.LagrangianPenalty: dict.fromkeys(("limit", "rate", "of"), TRUST),
    c.HardLimit: dict.fromkeys(("limit", "of"), TRUST),
    c.Correction: dict.fromkeys(("kind", "cap", "level"), "training.correction"),
    c.Planning: dict.fromkeys(("alpha", "phrases"), "training.planning"),
    c.Rehearsal: {"data": STAGES, **dict.fromkeys(("batch_size", "coefficient"), "training.rehearsal")},
    c.Teacher: {"model": RL, "coefficient": "training.distillation"},
    c.Replay: dict.fromkeys(("capacity", "groups", "max_age"), "training.off_policy"),
    c.Value: {"coefficient": "losses.evaluation"},
    c.KL: dict.fromkeys(("coefficient", "estimator", "place"), "training.credit"),
    c.ReasoningGym: {
        **dict.fromkeys(
            ("task", "settings", "system", "partial_credit", "scoring", "sandbox", "seed", "heldout"),
            "environments.reasoning_gym",
        ),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Arithmetic: {
        **dict.fromkeys(("min_terms", "max_terms", "digits", "system", "seed", "heldout"), "environments.arithmetic"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Mathematics: {
        **dict.fromkeys(("problems", "attempts", "system", "seed", "heldout"), "environments.mathematics"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.MadeMathematics: dict.fromkeys(("kinds", "difficulty"), "environments.mathematics"),
    c.MathematicsFile: dict.fromkeys(("path", "checker", "sandbox"), "environments.mathematics"),
    c.WorkedMathematics: dict.fromkeys(("tasks", "slips", "size", "seed"), SOURCES),
    c.JSONL: {
        **dict.fromkeys(("path", "reward", "answer_in", "judge", "system", "seed", "heldout"), "environments.jsonl"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Remote: {
        **dict.fromkeys(("environment", "settings", "system", "seed", "heldout"), "environments.remote.client"),
        **dict.fromkeys(("address", "patience", "call_seconds"), "environments.remote.connection"),
        **dict.fromkeys(("token_variable", "token_file", "tls"), "environments.remote.security"),
        "weight": DRAWING,
    },
    c.Verifiers: {
        **dict.fromkeys(("taskset", "settings", "scoring", "sandbox", "most"), ADAPTERS + "verifiers"),
        **dict.fromkeys(("system", "seed", "heldout"), ADAPTERS + "verifiers"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Gymnasium: {
        **dict.fromkeys(("environment", "settings", "actions", "instructions", "answer_in"), ADAPTERS + "gymnasium"),
        **dict.fromkeys(("turns", "illegal_cost", "system", "seed", "heldout"), ADAPTERS + "gymnasium"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.OpenEnv: {
        **dict.fromkeys(("url", "reset", "call_seconds", "max_message_mib", "patience"), ADAPTERS + "sessions"),
        **dict.fromkeys(("action_field", "action", "reply_as", "observation_field"), ADAPTERS + "openenv"),
        **dict.fromkeys(("instructions", "answer_in", "turns", "illegal_cost"), ADAPTERS + "openenv"),
        **dict.fromkeys(("system", "seed", "heldout"), ADAPTERS + "openenv"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Plugin: {
        **dict.fromkeys(("name", "settings", "system", "seed", "heldout"), "environments.plugins"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.RemoteTLS: dict.fromkeys(("authorities", "certificate", "key"), "environments.remote.security"),
    c.Debate: {
        **dict.fromkeys(
            ("path", "evidence", "rounds", "order", "team", "zero_sum", "judge", "system", "seed", "heldout"),
            "environments.debate",
        ),
        "weight": DRAWING,
    },
    c.RuleJudge: dict.fromkeys(("quotes", "invented"), "environments.verdicts"),
    c.ModelJudge: dict.fromkeys(("judge", "rubric"), "environments.debate"),
    c.Dialogue: {
        **dict.fromkeys(
            ("path", "turns", "begins", "ends_with", "reward", "answer_in", "judge", "user_reward", "seed", "heldout"),
            "environments.dialogue",
        ),
        **dict.fromkeys(("assistant_system", "user_system"), "environments.dialogue"),
        "weight": DRAWING,
    },
    c.JudgedReward: dict.fromkeys(("judge", "rubric", "scores", "show_answer"), "rewards.judge"),
    c.Judge: {
        **dict.fromkeys(("url", "model", "logprobs", "max_tokens", "temperature"), "rewards.judge"),
        **dict.fromkeys(("concurrency", "seconds", "attempts"), "rewards.judge"),
        "key_env": "config.judge",
    },
    c.WorkedDebates: dict.fromkeys(("tasks", "size", "seed"), SOURCES),
    c.Code: {
        **dict.fromkeys(
            ("problems", "credit", "attempts", "tolerance", "sandbox", "system", "seed", "heldout"),
            "environments.coding",
        ),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Issues: {
        **dict.fromkeys(
            ("path", "heldout_path", "repository", "validation", "characters", "numbered", "tools", "system"),
            "environments.issues",
        ),
        "credit": "environments.issues_judged",
        **dict.fromkeys(("seed", "heldout", "likeness"), "environments.issues"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.IssueCredit: dict.fromkeys(
        ("applied", "tests", "share", "similarity", "location", "quality", "readability", "explanation"),
        "environments.issues_judged",
    ),
    c.ToolUse: dict.fromkeys(
        ("call_cost", "max_calls", "call_seconds", "result_characters"), "environments.issues_tools"
    )
    | {"system": "environments.issues"},
    c.Validation: dict.fromkeys(("seconds", "plugins"), "issues.testing") | {"sandbox": "environments.issues_judged"},
    c.MadeProblems: dict.fromkeys(("min_steps", "max_steps", "largest", "tests"), "environments.code_made"),
    c.ListedProblems: dict.fromkeys(("path", "format", "shown", "inexact"), "environments.code_files"),
    c.Tools: {
        **dict.fromkeys(("tasks", "tools", "corpus", "sandbox", "servers"), "environments.tools.suite"),
        **dict.fromkeys(("call_cost", "max_calls", "call_seconds"), "environments.tools.suite"),
        **dict.fromkeys(("result_characters", "system", "seed", "heldout"), "environments.tools.suite"),
        "rewards": "environments.table",
        "weight": DRAWING,
    },
    c.Calculations: dict.fromkeys(("digits", "terms", "operations"), "environments.tools.tasks"),
    c.Lookups: {"hops": "environments.tools.tasks", "places": "environments.tools.suite"},
    c.FileTasks: dict.fromkeys(("files", "lines", "digits"), "environments.tools.tasks"),
    c.Questions: dict.fromkeys(("path", "reward"), "environments.tools.suite"),
    c.ProcessServer: {
        **dict.fromkeys(("command", "environment", "seconds"), "environments.tools.mcp"),
        "shared": "environments.tools.suite",
    },
    c.HTTPServer: {
        **dict.fromkeys(("url", "seconds"), "environments.tools.mcp"),
        "token_variable": "config.tools",
        "shared": "environments.tools.suite",
    },
    c.WorkedCalls: dict.fromkeys(("tasks", "guesses", "size", "seed"), SOURCES),
    c.Rewarded: {"rewards": "environments.table"},
    c.RewardPart: dict.fromkeys(("reward", "judge", "name", "scale", "clip", "bias"), "rewards.composed"),
    c.SandboxSettings: {
        **dict.fromkeys(("isolation", "workers", "seconds", "output_kib"), "sandbox.pool"),
        **dict.fromkeys(("memory_mib", "processes", "disk_mib"), "sandbox.worker"),
    },
    c.Conversations: dict.fromkeys(("path", "heldout_path", "heldout", "seed"), SOURCES),
    c.WorkedCode: dict.fromkeys(("tasks", "slips", "size", "seed"), SOURCES),
    c.WorkedSums: dict.fromkeys(("tasks", "slips", "size", "seed"), SOURCES),
    c.Episodes: dict.fromkeys(("path", "heldout_path", "heldout", "seed", "min_reward"), SOURCES),
    **{kind: dict.fromkeys(("path", "heldout", "seed"), SOURCES) for kind in (c.Preferences, c.Ratings)},
    c.WorkedPairs: dict.fromkeys(("tasks", "size", "malformed", "seed"), SOURCES),
}
"""The module, below ``fettle``, that reads each setting. A test looks the reading up in the source."""
