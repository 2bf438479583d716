"""The page of the benchmarks, from their records; ``service_page`` is that of the service."""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    "remote",
    "optimizer",
    "startup",
    "sandbox",
    "scaling",
)
"""Modules of this package, in the order of the table."""

Record = Mapping[str, Any]

INTRODUCTION = """\
# Benchmarks

Fettle beside what one would use instead: same machine, model, task and batch, both sides in one run and in turn. This
page is written by `make bench`, from what each row prints (`./run python -m benchmarks.NAME`); nothing in it is typed
by hand.
"""

FLOORS = """\
## Floors

No program is faster than the machine's arithmetic: its rate in a large matrix product, measured before and after each
row. Below is how many times as long each side took as that rate needs for the least arithmetic of the work: no padding,
each prompt once, nothing twice. Other rows have no such count.
"""

FAIRNESS = """\
## Notes

How it is kept fair:

- Sides take turns, and each repetition begins with another of them. A warm-up is not counted; trainers are whole
  programs in fresh processes, and so is whatever memory is measured of. Times are wall times, a ratio is of medians.
- Both sides run with the same number of threads, `OMP_WAIT_POLICY=PASSIVE` and `GOMP_SPINCOUNT=10000`, float32 weights,
  and the same weights: the models are made here, of random numbers. Where completions end by themselves, the likelihood
  of the end token is in the weights (1 in 20 wherever a token is drawn), so that every program that runs them sees it.
- Lengths that were drawn are told for both sides. Tokens a second count useful tokens only.
- TRL runs with no gradient checkpointing, no KL term, nothing saved or reported, one optimizer step a batch and the
  fused optimizer. What more was tried for it, of which it keeps the fastest: in `grpo` and `grpo_small` bfloat16
  autocast, micro-batches of 8 or the whole batch, and a static cache; in `time_to_reward` autocast and two learning
  rates, with the whole batch as one micro-batch; in `sft` autocast; in `dpo` autocast, and the reference read
  beforehand, outside of the measured time. `generate` was tried with a growing and with a static cache.
- In the race to a reward both start from one warm checkpoint and are scored by the same code on the same 200 held-out
  sums, with the clock stopped; each has the learning rate, of the same list, that serves it best.

Row by row, what each side did: medians, in brackets quartiles, and of how many.
"""

GPU = """\
## On a GPU

No GPU was at hand when these figures were taken, so there are none. The rows run there, one or all:

```bash
./run python -m benchmarks.training_step --device cuda --dtype bf16
./run python -m benchmarks --device cuda --dtype bf16 --to gpu.md
```

`rollouts`, `rollouts_long`, `training_step`, `training_step_long`, `bf16`, `broker` and `optimizer` then grow to a
Qwen3 of 1.5 billion random weights, with 64 prompts of 512 tokens x 8 completions of at most 512. The others stay at
the sizes that the table names; the held-out scores of `time_to_reward` are taken on the CPU, and `startup` runs
wherever the demo runs by itself.
"""


def row_of(name: str) -> Row:
    """What a module says of itself."""
    row: Row = importlib.import_module(f"benchmarks.{name}").ROW
    return row


def records(folder: Path, names: Sequence[str] = ROWS) -> list[Record]:
    """What was measured of these rows, in their order."""
    kept = [folder / f"{name}.json" for name in names]
    return [json.loads(path.read_text()) for path in kept if path.is_file()]


def page(found: Sequence[Record]) -> str:
    """The whole page."""
    if not found:
        return f"{INTRODUCTION}\nNothing was measured yet: run `make bench`.\n\n{FAIRNESS}\n{GPU}"
    parts = [
        INTRODUCTION,
        *machine_part(found),
        *table_part(found),
        *unmet_part(found),
        *_floors(found),
        FAIRNESS,
        *_notes(found),
    ]
    on_gpu = any(record["settings"]["device"] == "cuda" for record in found)
    return "\n".join(parts if on_gpu else [*parts, GPU])


def machine_part(found: Sequence[Record]) -> list[str]:
    """What it was measured on, when, and with what."""
    newest = max(found, key=lambda record: str(record["date"]))
    machine, settings = newest["machine"], newest["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in newest["versions"].items())
    days = sorted({str(record["date"])[:10] for record in found})
    busiest = max(record["load"]["before"] for record in found)
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    return [
        "## The machine\n",
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB of memory, "
        f"{', '.join(machine['bf16']) or 'no bfloat16 arithmetic'}; {machine['system']}, Python {machine['python']}. "
        f"{settings['threads']} threads, {settings['dtype']}. Measured "
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; the load before a row was at most {busiest:.1f}.\n",
        f"{packages}.\n",
    ]


def table_part(found: Iterable[Record], missing: Iterable[str] = ()) -> list[str]:
    """A line for each row; ``missing`` are those that nobody measured."""
    lines = ["## The table\n", "| row | work | against | target | measured | met |", "|---|---|---|---|---|---|"]
    for record in found:
        row = row_of(record["benchmark"])
        met = record["not_applicable"] or ("yes" if record["met"] else "**no**")
        value = "" if record["not_applicable"] else f"{number(record['ratio'])} {row.unit}"
        lines.append(f"| [`{row.name}`](#{row.name}) | {row.work} | {row.peer} | {_target(row)} | {value} | {met} |")
    for row in map(row_of, missing):
        lines.append(f"| `{row.name}` | {row.work} | {row.peer} | {_target(row)} | not measured | |")
    return [*lines, ""]


def _target(row: Row) -> str:
    return f"{'≥' if row.better == 'higher' else '≤'} {row.target:g} {row.unit}".rstrip()


def unmet_part(found: Sequence[Record], names: Sequence[str] = ROWS) -> list[str]:
    """A sentence for each row that is not met; one, if all are; and one for those that were not measured."""
    lines = []
    for record in found:
        if record["not_applicable"] or record["met"]:
            continue
        row = row_of(record["benchmark"])
        reasons = [f'"{name}" does not hold' for name, held in record["further"].items() if not held]
        if not row.met(record["ratio"]):
            least = "at least" if row.better == "higher" else "at most"
            reasons.insert(0, f"{number(record['ratio'])} {row.unit}, where {least} {row.target:g} was the target")
        lines.append(f"**`{row.name}` is not met**: {'; '.join(reasons)}.\n")
    missing = [f"`{name}`" for name in names if name not in {record["benchmark"] for record in found}]
    unmeasured = [f"Not measured by this commit: {', '.join(missing)}.\n"] if missing else []
    return [*(lines or ["Every row that was measured is met.\n"]), *unmeasured]


def _floors(found: Sequence[Record]) -> list[str]:
    floors = {name: [record["floor"][name] for record in found] for name in ("fp32_gflops", "bf16_gflops", "copy_gbps")}
    low, high = ({name: number(end(values)) for name, values in floors.items()} for end in (min, max))
    lines = [
        FLOORS,
        f"From row to row float32 products ran at {low['fp32_gflops']} to {high['fp32_gflops']} GFLOP/s, bfloat16 ones "
        f"at {low['bf16_gflops']} to {high['bf16_gflops']}, and a copy moved {low['copy_gbps']} to {high['copy_gbps']} "
        "GB/s.\n",
        "| row | Fettle | peer |",
        "|---|---|---|",
    ]
    for record in found:
        peer = dict(_multiples(record["peer"]))
        for where, multiple in _multiples(record["ours"]):
            other = f"{number(peer[where])} x" if where in peer else ""
            lines.append(f"| `{record['benchmark']}`{where} | {number(multiple)} x | {other} |")
    return [*lines, ""]


def _multiples(side: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, float]]:
    """Every multiple of the floor that a side tells, and of what."""
    for name, value in side.items():
        if name == "floor_multiple":
            yield where, value
        elif isinstance(value, Mapping):
            yield from _multiples(value, f"{where}, {name.replace('_', ' ')}")


def _notes(found: Iterable[Record]) -> list[str]:
    lines = []
    for record in found:
        lines += [f"### {record['benchmark']}\n", f"- Fettle: {said(record['ours'])}"]
        lines += [f"- peer: {said(record['peer'])}"] if record["peer"] else []
        lines += [f"- {name}: {worded(held)}" for name, held in record["further"].items()]
        lines += [f"- {note}" for note in record["notes"]]
        lines.append("")
    return lines


def said(side: Mapping[str, Any]) -> str:
    """What a side did, in one line."""
    told = {name: value for name, value in side.items() if name != "floor_multiple"}
    return ", ".join(f"{name.replace('_', ' ')} {worded(value)}" for name, value in told.items()) or "nothing"


def worded(value: Any) -> str:
    """A figure for people: medians with their quartiles, and numbers of three digits."""
    if isinstance(value, Mapping) and "median" in value:
        if value["n"] == 1:
            return number(value["median"])
        quartiles = f"{number(value['q1'])}, {number(value['q3'])}"
        return f"{number(value['median'])} [{quartiles}] of {value['n']}"
    if isinstance(value, Mapping):
        return "(" + said(value) + ")"
    if isinstance(value, list):
        return "; ".join(map(worded, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Three digits, and thousands whole; a rate that was written of an infinity is none."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
