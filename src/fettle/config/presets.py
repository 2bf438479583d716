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
    }
)
