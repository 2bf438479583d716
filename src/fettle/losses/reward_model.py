"""Bradley-Terry. Axes: N pairs."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def reward_modeling(
    *,
    chosen_scores: Float[Tensor, " N"],
    rejected_scores: Float[Tensor, " N"],
    pair_margin: Float[Tensor, " N"],
    temperature: float = 1.0,
    margin: float = 0.0,
    margin_place: str = "reward",
    centering: float = 0.0,
) -> tuple[Float[Tensor, " N"], dict[str, Tensor]]:
    """To be written."""
    d = chosen_scores - rejected_scores
    return -logsigmoid((d - margin - pair_margin) / temperature), {
        "reward_margin": d.detach(),
        "preference_accuracy": (d > 0).float(),
    }
