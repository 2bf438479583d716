"""The page of what was killed and what came of it, from what the trials printed."""

from collections.abc import Mapping
from typing import Any

INTRODUCTION = """\
# What may die on a cluster

Processes and machines were killed in the midst of real runs, and each run compared with the same one in which nobody
was killed. This page is written by `python -m benchmarks.cluster_faults --page faults.json`, from what the trials
printed; nothing in it is typed by hand but the words. [On a cluster](cluster.md) says how it is done.

| killed | times | runs | survived | operations lost | doubled | differ | seconds, median | most |
|---|---|---|---|---|---|---|---|---|
"""

WORDS = """
- **Times**: kills, which fall before an operation or in its midst, as chance has it; below is where they fell.
- **Lost, doubled**: operations (of a driver: rows of metrics) that the run without kills has and this one has not, or
  that this one has more often.
- **Differ**: answers of operations, rows of metrics and files of weights that are not the same to the bit. Where fewer
  ranks go on, or other samplers, sums are added up in another order: there it is the largest difference of a metric,
  relative to it or to 1 (gradient norms and explained variance left out, in which rounding adds up).
- **Seconds**: from the kill until the operation under way had ended; of a machine, from when it began to go until an
  operation had ended after it was gone. Of a driver: from `--resume` until the run stood further than it had; of a
  request to end: until the process had ended. Of an environment worker: by how much longer the run took than the one
  without kills. They are mostly those in which a process imports torch and transformers, on two cores: the load is how
  many programs wanted them.
"""

EACH: Mapping[str, str] = {
    "ranks": """\
- **A rank**: SIGKILL to one of two, and one time in five to another while the first is being replaced; GRPO with an
  adapter, PPO with a critic, SFT and DPO by turns. Policies are written down about every 0.3 s of computing.
""",
    "sampler": """\
- **A sampler**: SIGKILL to one of two actors, as they draw or are sent weights.
""",
    "environments": """\
- **An environment worker**: SIGKILL to one of two, at any time; their rewards take 0.2 s each.
""",
    "driver": """\
- **The driver**: SIGKILL to the process of `fettle train --engine ray`, which has its own cluster, then
  `fettle train --resume`, again and again. Ranks end with it; two helpers of Ray look for the rest of their cluster
  for about a minute, and then end too. The folder in which Ray had its files is removed by the next run.
""",
    "node": """\
- **A machine; another has room**: a node of a cluster of several (`ray.cluster_utils.Cluster`, processes on this
  machine) is removed without a word, and with it a rank. Ray finds out by itself.
""",
    "fewer": """\
- **A machine; none has room**: the same, and the other rank goes on alone.
""",
    "drain": """\
- **A notice**: Ray is told that a node drains, as `ray drain-node` tells it, and as a node tells it that gets SIGTERM.
  All policies are written down at once, the rank is ended and begun elsewhere, and then the node is removed.
""",
    "preemption": """\
- **A request to end**: SIGTERM. The run ends its step, saves, says how to go on, and exits with 130; nothing waits for
  a deadline, so a step must be shorter than that. After it, a run goes on from its newest checkpoint all the same.
""",
}
"""What was done, by trial."""

HOW = """
```bash
python -m benchmarks.cluster_faults --json faults.json                    # all of them: hours, where others compute too
python -m benchmarks.cluster_faults --what ranks --kills 5                # some minutes
```
"""


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    rows = "".join(_row(row) for row in found.values())
    where = "".join(_where(row) for row in found.values())
    each = "\n## What each is\n\n" + "".join(text for name, text in EACH.items() if name in found)
    absent = ", ".join(f"`{name}`" for name in EACH if name not in found)
    left = f"\nOther trials (`--what`) have no row here, since they were not measured: {absent}.\n" if absent else ""
    return INTRODUCTION + rows + WORDS + "\n## Where kills fell\n\n" + where + _machine(found) + each + left + HOW


def _row(row: Mapping[str, Any]) -> str:
    seconds = row["seconds"]
    exact = "answers_that_differ" in row or "weights_differ" in row
    names = ("answers_that_differ", "rows_that_differ", "weights_differ")
    differ = f"{sum(row.get(name, 0) for name in names)}" if exact else f"{row['largest_difference']:.1e}"
    cells = [row["what"], row["kills"], row["runs"], row["survived"], row["lost"], row["doubled"], differ]
    return f"| {' | '.join(str(each) for each in [*cells, seconds.get('p50', ''), seconds.get('max', '')])} |\n"


def _where(row: Mapping[str, Any]) -> str:
    notes = {
        "left_running": "processes left running",
        "ranks_gone_seconds_max": "seconds until no rank of the killed run ran, at most",
        "gone_seconds_max": "seconds until nothing of the killed run ran, at most",
        "ranks_replaced": "ranks replaced",
        "workers_replaced": "workers replaced",
        "written_after_seconds": "seconds from the notice until all policies were written down, at most",
        "given_up_after_seconds": "seconds from then until the rank had left the machine, at most",
        "start_seconds": "`engine.start_seconds`",
        "drawn_by_the_trainer": "requests drawn by the trainer",
    }
    told = [f"{name} {count}" for name, count in row["during"].items()]
    told += [f"{words}: {row[name]:g}" for name, words in notes.items() if name in row]
    told += [f"{row['operations']} operations in all" if row["during"] else f"{row['operations']} rows of metrics"]
    return f"- {row['what']}: {', '.join(told)}; load {row['load'][0]:.1f} before and {row['load'][1]:.1f} after.\n"


def _machine(found: Mapping[str, Mapping[str, Any]]) -> str:
    newest = max(found.values(), key=lambda row: str(row["date"]))
    machine, versions = newest["machine"], newest["versions"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"\n{machine['cpu']}, {machine['cores']} cores; {told}; measured {newest['date'][:10]}.\n"
