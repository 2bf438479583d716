"""The optimizer: clip and AdamW step of a policy, against torch's fused AdamW over its parameters one by one.

All of 17 million weights, and adapters of rank 16 on every linear layer: hundreds of small tensors.
"""

from typing import Any

import torch
from torch import nn

from benchmarks.figures import ratio, spread
from benchmarks.harness import Outcome, Row, Settings, interleaved, main, seconds_of
from benchmarks.machine import Floor
from benchmarks.workload import POLICY, engine, peer_model, workload
from fettle.config import AdamW, CausalLM, LoRA
from fettle.types import datum

ROW = Row(
    name="optimizer",
    work="clip and AdamW step, all of 17 M weights (beside it: adapters of rank 16)",
    peer="torch's fused AdamW and clip_grad_norm_, parameter by parameter",
    target=1.0,
)
RATE = 1e-6


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    model = workload(settings).model
    module = peer_model(model, settings.device, "fp32")
    whole = _compared(settings, model, [nn.Parameter(p.detach().clone()) for p in module.parameters()])
    rank = LoRA().rank
    linear = [layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and "head" not in name]
    pairs = [(rank, layer.in_features) for layer in linear] + [(layer.out_features, rank) for layer in linear]
    few = [nn.Parameter(torch.randn(*shape, device=settings.device)) for shape in pairs]
    adapters = _compared(settings, model, few, lora=LoRA())
    sides = {
        side: {"seconds": spread(whole[side]), "adapters_seconds": spread(adapters[side])} for side in ("ours", "peer")
    }
    sides["ours"]["adapters_ratio"] = {"times": ratio(adapters["peer"], adapters["ours"])}
    return Outcome(ratio(whole["peer"], whole["ours"]), sides["ours"], sides["peer"])


def _compared(settings: Settings, model: str, parameters: list[nn.Parameter], **spec: Any) -> dict[str, list[float]]:
    adam = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    data = [datum([5, 6, 7, 8], [0.0, 1.0, 1.0, 1.0])]

    def peer() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad()

    with engine(settings, model, **spec) as backend:

        def timed_ours() -> float:
            backend.forward_backward(POLICY, data, CausalLM())
            return seconds_of(lambda: backend.optim_step(POLICY, AdamW(learning_rate=RATE)), settings.device)

        def timed_peer() -> float:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            return seconds_of(peer, settings.device)

        return interleaved({"ours": timed_ours, "peer": timed_peer}, 4 * settings.repetitions)


if __name__ == "__main__":
    main(ROW, measured)
