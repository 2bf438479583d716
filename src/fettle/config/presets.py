"""Algorithms by name: each is one row of settings, checked against its paper in ``docs/algorithms.md``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "grpo": {  # Shao et al., 2024, arXiv:2402.03300
            "loss": {"type": "ppo", "clip_low": 0.2, "clip_high": 0.2, "kl": {"coefficient": 0.04, "estimator": "k3"}},
            "advantage": "group_normalized",
            "reduction": {"type": "sequence_mean"},
        },
        "dr_grpo": {  # Liu et al., 2025, arXiv:2503.20783
            "loss": {"type": "ppo", "clip_low": 0.2, "clip_high": 0.2, "kl": None},
            "advantage": "group_centered",
            "reduction": {"type": "fixed_length"},
        },
        "dapo": {  # Yu et al., 2025, arXiv:2503.14476
            "loss": {"type": "ppo", "clip_low": 0.2, "clip_high": 0.28, "kl": None},
            "advantage": "group_normalized",
            "reduction": {"type": "token_mean"},
            "dynamic_sampling": {"max_rounds": 10},
            "overlong": {"buffer": 0.2},
        },
        "gspo": {  # Zheng et al., 2025, arXiv:2507.18071
            "loss": {"type": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "kl": None},
            "advantage": "group_normalized",
            "reduction": {"type": "sequence_mean"},
        },
        "cispo": {  # MiniMax, 2025, arXiv:2506.13585
            "loss": {"type": "cispo", "ratio_low": 0.0, "ratio_high": 4.0, "kl": None},
            "advantage": "group_normalized",
            "reduction": {"type": "token_mean"},
        },
        "rloo": {  # Ahmadian et al., 2024, arXiv:2402.14740
            "loss": {"type": "importance_sampling", "kl": {"coefficient": 0.03, "estimator": "k1", "place": "reward"}},
            "advantage": "leave_one_out",
            "reduction": {"type": "sequence_sum"},
        },
        "reinforce_pp": {  # Hu et al., 2025, arXiv:2501.03262
            "loss": {
                "type": "ppo",
                "clip_low": 0.2,
                "clip_high": 0.2,
                "kl": {"coefficient": 0.01, "estimator": "k1", "place": "reward"},
            },
            "advantage": "batch_normalized",
            "reduction": {"type": "token_mean"},
        },
        "ppo": {  # Schulman et al., 2017, arXiv:1707.06347, as Ouyang et al., 2022, arXiv:2203.02155, apply it
            "loss": {
                "type": "ppo",
                "clip_low": 0.2,
                "clip_high": 0.2,
                "kl": {"coefficient": 0.02, "estimator": "k1", "place": "reward"},
            },
            "advantage": "gae",
            "critic": {"gamma": 1.0, "gae_lambda": 0.95},
            "reduction": {"type": "token_mean"},
            "minibatches": 2,
            "epochs": 2,
        },
        "conservative_ppo": {  # Schulman et al., 2017, section 4, with the limit made hard
            "loss": {"type": "ppo", "clip_low": 0.2, "clip_high": 0.2, "kl": None},
            "advantage": "gae",
            "critic": {"gamma": 1.0, "gae_lambda": 0.95},
            "reduction": {"type": "token_mean"},
            "trust_region": {"type": "hard", "limit": 0.01},
            "minibatches": 2,
            "epochs": 2,
        },
        "off_policy": {  # importance sampling from a replay buffer, truncated (Ionides, 2008)
            "loss": {"type": "importance_sampling", "clip_ratio": 2.0, "kl": None},
            "advantage": "group_normalized",
            "reduction": {"type": "token_mean"},
            "replay": {"capacity": 256, "groups": 8},
        },
        "distill": {  # on-policy distillation: the reverse KL to a teacher, token by token (arXiv:2306.13649)
            "loss": {"type": "importance_sampling", "kl": None},
            "advantage": "none",
            "reduction": {"type": "token_mean"},
        },
    }
)
