"""The page of the benchmarks, from their records."""

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row

ROWS = (
    "rollouts",
    "rollouts_long",
    "training_step",
    "training_step_long",
    "grpo",
    "grpo_small",
    "time_to_reward",
    "sft",
    "dpo",
    "head_memory",
    "adapters",
    "broker",
    "bf16",
    "overlap",
    "turns",
    "optimizer",
    "startup",
    "scaling",
)
"""Modules of this package, in the order of the table."""

Record = Mapping[str, Any]

INTRODUCTION = """\
# Benchmarks

Fettle beside what one would use instead: same machine, model, task and batch, both sides in one run and in turn. This
page is written by `make bench`, row by row what `python -m benchmarks.NAME --json` prints; nothing in it is typed by
hand. A ratio is of medians; brackets hold quartiles.
"""

FAIRNESS = """\
## How it is kept fair

- Sides take turns, each repetition begins with another of them, after a warm-up that is not counted; whole trainers and
  whatever memory is measured run in fresh processes. Times are wall times.
- Both sides run with the same number of threads, `OMP_WAIT_POLICY=PASSIVE` and `GOMP_SPINCOUNT=10000`, float32 weights, and the same weights: the
  models are made here, of random numbers. Where completions end by themselves, the likelihood of the end token is in
  the weights (1 in 20 wherever a token is drawn), so that every program that runs them sees it.
- Lengths that were drawn are told for both sides. Tokens a second count useful tokens only.
- TRL runs with no gradient checkpointing, no KL term, nothing saved or reported, one optimizer step a batch and the
  fused optimizer. Whether bfloat16 autocast, micro-batches of 8 or the whole batch, and a static cache make it faster
  is tried first, and it keeps the fastest.
- In the race to a reward both start from one warm checkpoint and are scored by the same code on the same 200 held-out
  sums, with the clock stopped; each has the learning rate, of the same list, that serves it best.
- The floor is the rate of a large matrix product and of a copy, measured before and after each row. A side's multiple
  of it is its time over that of the least arithmetic that the work needs: no padding, each prompt once, nothing twice.
"""

GPU = """\
## On a GPU

No GPU was at hand when these figures were taken, so there are none. The same rows run there; the model is then a Qwen3
of 1.5 billion random weights, with 64 prompts of 512 tokens x 8 completions of at most 512:

```bash
./run python -m benchmarks.rollouts --device cuda --dtype bf16 --json
./run python -m benchmarks.training_step --device cuda --dtype bf16 --json
```
"""


def row_of(name: str) -> Row:
    """What a module says of itself."""
    row: Row = importlib.import_module(f"benchmarks.{name}").ROW
    return row


def records(folder: Path) -> list[Record]:
    """What was measured, in the order of the table."""
    kept = [folder / f"{name}.json" for name in ROWS]
    return [json.loads(path.read_text()) for path in kept if path.is_file()]


def page(found: Sequence[Record]) -> str:
    """The whole page."""
    if not found:
        return f"{INTRODUCTION}\nNothing was measured yet: run `make bench`.\n\n{FAIRNESS}\n{GPU}"
    parts = [INTRODUCTION, *_machine(found), *_table(found), FAIRNESS, *_details(found), GPU]
    return "\n".join(parts)


def _machine(found: Sequence[Record]) -> list[str]:
    newest = max(found, key=lambda record: str(record["date"]))
    machine, settings = newest["machine"], newest["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in newest["versions"].items())
    days = sorted({str(record["date"])[:10] for record in found})
    busiest = max(record["load"]["before"] for record in found)
    return [
        "## The machine\n",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB of memory, "
        f"{', '.join(machine['bf16']) or 'no bfloat16 arithmetic'}; {machine['system']}, Python {machine['python']}. "
        f"{settings['threads']} threads, {settings['dtype']}. Measured "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; the load before a row was at most {busiest:.1f}.\n",
        f"{packages}.\n",
    ]


def _table(found: Iterable[Record]) -> list[str]:
    lines = ["## The table\n", "| row | work | against | target | measured | met |", "|---|---|---|---|---|---|"]
    for record in found:
        row = row_of(record["benchmark"])
        sign = "≥" if row.better == "higher" else "≤"
        met = record["not_applicable"] or ("yes" if record["met"] else "**no**")
        further = "".join(f"; {name}: {'yes' if held else '**no**'}" for name, held in record["further"].items())
        target = f"{sign} {row.target:g} {row.unit}"
        value = f"{record['ratio']:.3g} {row.unit}{further}"
        lines.append(f"| `{row.name}` | {row.work} | {row.peer} | {target} | {value} | {met} |")
    return [*lines, ""]


def _details(found: Iterable[Record]) -> list[str]:
    lines = ["## Row by row\n"]
    for record in found:
        floor, load = record["floor"], record["load"]
        lines += [
            f"### {record['benchmark']}\n",
            f"- Fettle: {_said(record['ours'])}",
            f"- peer: {_said(record['peer'])}",
            f"- floor: float32 {floor['fp32_gflops']:.0f} GFLOP/s, bfloat16 {floor['bf16_gflops']:.0f} GFLOP/s, copy "
            f"{floor['copy_gbps']:.1f} GB/s; load {load['before']:.1f} before, {load['after']:.1f} after; "
            f"{record['settings']['repetitions']} repetitions",
            *(f"- {note}" for note in record["notes"]),
            "",
        ]
    return lines


def _said(side: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in side.items()) or "nothing"


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "median" in value:
        return f"{value['median']:.4g} [{value['q1']:.4g}, {value['q3']:.4g}]"
    if isinstance(value, Mapping):
        return "(" + _said(value) + ")"
    if isinstance(value, list):
        return "; ".join(_value(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
