"""The commands by which ``docs/issues.md`` makes what its recipe needs, as they stand there, with smaller numbers."""

import re
import shlex
from pathlib import Path

from tests.commands import typed

PAGE = (Path(__file__).parent.parent.parent / "docs" / "issues.md").read_text()
SMALLER = {"problems=400": "problems=5", "problems=2400": "problems=3"}


def test_the_commands_of_the_recipe_make_its_files(tmp_path, monkeypatch):
    [block] = [found for found in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "fettle train" in found]
    *commands, last = [shlex.split(line) for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    for _, *words in commands:
        code, out, err = typed(*(SMALLER.get(word, word) for word in words))
        assert code == 0, (words, out, err)
    assert last == ["fettle", "train", "configs/issues.yaml"]
    made = {path.name for path in (tmp_path / "data" / "issues").glob("*.jsonl")}
    assert made == {"mined.jsonl", "validated.jsonl", "train.jsonl", "heldout.jsonl", "demonstrations.jsonl"}
