"""bfloat16: our own training step with bfloat16 arithmetic over float32 weights, against our own float32."""

from dataclasses import replace

from benchmarks import flops
from benchmarks.figures import ratio
from benchmarks.harness import Outcome, Row, Settings, interleaved, main, seconds_of, told
from benchmarks.machine import Floor, has_bf16
from benchmarks.training_step import STILL
from benchmarks.workload import POLICY, completions, engine, on_policy, training_data, workload
from fettle.config import PPO
from fettle.engine.local import LocalBackend
from fettle.types import Datum

ROW = Row(
    name="bf16",
    work="training step in bfloat16 with float32 master weights, 17 M",
    peer="own float32",
    target=1.5,
)


def measured(settings: Settings, floor: Floor) -> Outcome:
    """The row."""
    if settings.device == "cpu" and not has_bf16():
        return Outcome(0.0, {}, {}, not_applicable="not applicable: this processor has no bfloat16 arithmetic")
    work = workload(settings)
    replies = completions(work)
    in_bf16, in_fp32 = replace(settings, dtype="bf16"), replace(settings, dtype="fp32")
    with engine(in_bf16, work.model) as quick, engine(in_fp32, work.model) as exact:
        data = on_policy(exact, training_data(work, replies))
        sides = {
            "ours": lambda: _step(quick, data, settings),
            "peer": lambda: _step(exact, data, settings),
        }
        found = interleaved(sides, settings.repetitions)
    needed = flops.trained(work.size, [len(each) for each in work.prompts], work.group, [len(each) for each in replies])
    ours = told(found["ours"], flops=needed, floor=floor, dtype="bf16")
    return Outcome(ratio(found["peer"], found["ours"]), ours, told(found["peer"], flops=needed, floor=floor))


def _step(backend: LocalBackend, data: list[Datum], settings: Settings) -> float:
    seconds = seconds_of(lambda: backend.forward_backward(POLICY, data, PPO()), settings.device)
    backend.optim_step(POLICY, STILL)
    return seconds


if __name__ == "__main__":
    main(ROW, measured)
