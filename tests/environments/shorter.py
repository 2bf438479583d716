"""A recipe of two stages, shortened to seconds."""


def shorter(environment: str) -> list[str]:
    """What to lay over a warm-up and its GRPO, which then plays ``environment``."""
    return [
        "stages.0.policy.model={type: tiny, hidden: 32, layers: 1, heads: 2}",
        "stages.0.data.size=64",
        "stages.0.data.tasks.heldout=6",
        "stages.0.steps=2",
        "stages.0.batch_size=8",
        f"stages.1.environments=[{environment}]",
        "stages.1.steps=2",
        "stages.1.groups_per_step=2",
        "stages.1.group_size=2",
        "stages.1.sampling.max_tokens=8",
        "stages.1.evaluation.tasks=6",
    ]
