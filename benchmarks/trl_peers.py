"""TRL at its fastest sane settings on this machine, timed step by step.

No gradient checkpointing, no KL term, no reference, one optimizer step a batch, the fused optimizer, nothing saved or
reported. What else could be faster (bfloat16 autocast, the size of micro-batches, a static cache, a reference read
beforehand) each row says that it tries, and takes the best of.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from benchmarks.harness import Settings

CLIP_NORM = 1.0


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds from the end of one step to the end of the next, less the time that the clock is stopped."""

    def __init__(self, after: Callable[[int, float], bool] | None = None) -> None:
        """``after`` is told, with the clock stopped, the steps done and the seconds so far; True ends the run."""
        self.seconds: list[float] = []
        self._after = after
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts where the first batch is asked for."""
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """One step is done."""
        self.seconds.append(time.perf_counter() - self._since)
        if self._after is not None and self._after(state.global_step, sum(self.seconds)):
            control.should_training_stop = True
        self._since = time.perf_counter()
        return control


def arguments(settings: Settings, *, amp: bool, rate: float, steps: int, **further: Any) -> dict[str, Any]:
    """What every TRL trainer is given."""
    return {
        "output_dir": tempfile.mkdtemp(prefix="trl-"),
        "use_cpu": settings.device == "cpu",
        "bf16": amp,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": CLIP_NORM,
        "optim": "adamw_torch_fused",
        "max_steps": steps,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 10_000,
        "dataloader_pin_memory": False,
        **further,
    }


def model_and_tokenizer(folder: str) -> tuple[Any, Any]:
    """In float32, as TRL trains them."""
    import torch

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def run(trainer: Any) -> None:
    """Train, and print nothing of it."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()
