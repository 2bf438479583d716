"""The page of the training service's measurements, from their records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.page import Record, machine_part, number, row_of, table_part, unmet_part, worded

SHORT = ("service", "journal")
"""Rows that ``make bench`` measures with the others."""
LONG = ("skyrl", "crash", "soak", "fuzz")
"""Rows that take long, or make an environment for a peer: measured only where they are named."""
ROWS = SHORT + LONG
"""Modules of this package, in the order of the page."""

INTRODUCTION = """\
# The training service, measured

What the service costs, what it bears, and what it survives. This page is written by `make bench`, from what each row
prints; nothing in it is typed by hand.
"""

HOW = """\
## How it is measured

`make bench` measures `service` and `journal`. The others run long, and are measured where they are asked for:

```bash
./run python -m benchmarks --only skyrl    # about half an hour, of which some minutes to make the peer's environment
./run python -m benchmarks --only crash    # 200 processes killed: about an hour
./run python -m benchmarks --only soak     # twenty minutes
./run python -m benchmarks --only fuzz     # 20,000 requests: about ten minutes
```

- The server is `fettle serve`, a process of its own on 127.0.0.1, with keys, with its journal and catalogue on a disk,
  and with as many threads as the page of the [other benchmarks](benchmarks.md) says. The model is Qwen3 of 0.85 million
  random weights, where nothing else is said: computing is little, and what the service adds shows.
- The overhead of an operation is read on the server: from the application's being called for a request to the last byte
  of its answer, less what the backend computed meanwhile; uvicorn's reading of the request line is not in it. What a
  client sees, with all of HTTP on both sides, is told beside it.
- `journal` compares two brokers in one process, turn by turn; its figure is the median of the differences.
- `skyrl` drives each server with the release of the `tinker` client that it speaks, in turn, and each shape is warmed
  up first, so that no compilation is counted. The peer runs compiled, on all cores, with whole batches and no more
  slots for adapters than it needs, in an environment of its own from the package registry; its time on the small
  shapes is mostly the polling of its queue, which has no setting.
- Memory is the resident set of the server's process. Growth is that of a straight line through the second half.
- Every request of `fuzz` has a number: the one that finds a fault can be sent again by itself.
"""


def page(found: Sequence[Record]) -> str:
    """The whole page."""
    measured = {record["benchmark"] for record in found}
    missing = [name for name in ROWS if name not in measured]
    parts = [INTRODUCTION]
    if found:
        parts += machine_part(found)
    parts += [*table_part(found, missing), *(unmet_part(found, ROWS) if found else [])]
    for record in found:
        parts += [f"## {record['benchmark']}\n", f"{_sentence(row_of(record['benchmark']).work)}.\n"]
        parts += TOLD[record["benchmark"]](record)
        parts += [*(f"- {name}: {worded(held)}" for name, held in record["further"].items()), ""]
        parts += [*(f"- {_line(note)}" for note in record["notes"]), ""] if record["notes"] else []
    return "\n".join([*parts, HOW])


def _figures(record: Record) -> list[str]:
    """Everything that was found, a line each."""
    return _lines(("figure", "measured"), [(name, worded(value)) for name, value in leaves(record["ours"])])


def _beside(record: Record) -> list[str]:
    """The same of both sides."""
    peer = dict(leaves(record["peer"]))
    told = [(name, worded(value), worded(peer.get(name, ""))) for name, value in leaves(record["ours"])]
    return _lines(("figure", "Fettle", _peer(record)), told)


def _ratios(record: Record) -> list[str]:
    """Seconds of both sides, and how many times the one goes into the other."""
    told = []
    for name, value in leaves(record["ours"]):
        peer = dict(leaves(record["peer"]))[name]
        told.append((name, worded(value), worded(peer), f"{number(peer['median'] / value['median'])} x"))
    return _lines(("work", "Fettle", _peer(record), "ratio"), told)


def _soak(record: Record) -> list[str]:
    """Memory over time, and what was done meanwhile."""
    ours = record["ours"]
    mib, every = ours["resident_mib"], ours["every_seconds"]
    places = sorted({0, len(mib) // 4, len(mib) // 2, 3 * len(mib) // 4, len(mib) - 1})
    memory = [(f"memory after {number((place + 1) * every / 60)} minutes", f"{mib[place]:.0f} MiB") for place in places]
    growth = [("growth over the second half", f"{100 * record['ratio']:+.2f} %")]
    return _lines(("figure", "measured"), [*memory, *growth, *((name, str(n)) for name, n in ours["done"].items())])


def _fuzz(record: Record) -> list[str]:
    """Answers by protocol and by class of status."""
    classes: Mapping[str, Mapping[str, int]] = record["ours"]["classes"]
    names = sorted({name for told in classes.values() for name in told})
    told = [(face, *(f"{each.get(name, 0):,}" for name in names)) for face, each in classes.items()]
    faults = f"{record['ours']['requests']:,} requests, of seed {record['ours']['seed']}: {record['ratio']:g} faults.\n"
    return [faults, *_lines(("requests", *names), told)]


def _peer(record: Record) -> str:
    """Whom a row is measured against."""
    return row_of(record["benchmark"]).peer


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every figure in a record with its name; a median with its quartiles is one."""
    for key, value in tree.items():
        own = (*path, key.replace("_", " "))
        if isinstance(value, Mapping) and "q1" not in value:
            yield from leaves(value, own)
        else:
            yield ", ".join(own), value


def _lines(head: Sequence[str], told: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    rows = [head, ["---"] * len(head), *told]
    return [*(f"| {' | '.join(_line(cell) for cell in row)} |" for row in rows), ""]


def _line(text: str) -> str:
    """A text that stays where it is put."""
    return " ".join(text.replace("|", "\\|").split())


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


TOLD: Mapping[str, Callable[[Record], list[str]]] = MappingProxyType(
    {
        "service": _figures,
        "journal": _beside,
        "skyrl": _ratios,
        "crash": _figures,
        "soak": _soak,
        "fuzz": _fuzz,
    }
)
"""How each row's record is told."""
