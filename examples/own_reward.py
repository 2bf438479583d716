"""A reward of your own, and the files for it: letters that must open in the tone that fits whom they go to.

Two commands, under a minute: python examples/own_reward.py; fettle train configs/own-reward.yaml
"""

import json
import random
from pathlib import Path

from fettle.cli.invoked import FETTLE
from fettle.types import Task

OPENINGS = {"formal": ("Dear Sir or Madam,", "To whom it may concern,"), "friendly": ("Hi there!", "Hello, my dear!")}
READERS = {"formal": ("my bank", "a judge", "the mayor"), "friendly": ("my sister", "a friend", "grandma")}
SHOWN = ("a late train", "the garden", "a lost key", "my rent", "the party", "a cold", "the weather")
ASKED = ("old shoes", "a loud dog", "the bill", "my holiday", "a new job", "the concert", "a broken cup")


def tone(reply: str, task: Task) -> dict[str, float]:
    """1 for an opening in the right tone, which stands in the row as ``answer``; a little for keeping it short."""
    right = reply.strip() in OPENINGS[task.data["answer"]]
    short = len(reply) <= task.data["longest"]
    return {"tone": float(right), "short": 0.1 * short}


def write(folder: Path, seed: int = 0) -> None:
    """``letters.jsonl``: the tasks; ``greetings.jsonl``: conversations on other subjects, right seven times in ten."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    other = {"formal": "friendly", "friendly": "formal"}
    letters, greetings = [], []
    for kind, reader in ((kind, reader) for kind, readers in READERS.items() for reader in readers):
        for subject in ASKED:
            letters.append({"prompt": f"Begin a letter to {reader} about {subject}.", "answer": kind, "longest": 20})
        for subject in SHOWN * 14:
            opening = rng.choice(OPENINGS[kind if rng.random() < 0.7 else other[kind]])
            greetings.append({"prompt": f"Begin a letter to {reader} about {subject}.", "completion": opening})
    for name, rows in (("letters", letters), ("greetings", greetings)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write(Path("data"))
    print(f"wrote data/letters.jsonl and data/greetings.jsonl; next: {FETTLE} train configs/own-reward.yaml")
