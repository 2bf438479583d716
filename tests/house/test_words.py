"""Words that must not be found."""

import ast
import re
from pathlib import Path

ROOMS_WITH_NO_MEANING = {"utils", "util", "common", "helpers", "helper", "misc"}
LEFT_TO_DO = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
ONE_MACHINE = re.compile(r"(?<![\w./-])(/wor" r"k/|/tm" r"p/w/|shar" r"ed/)")
REASONED = re.compile(r"# noqa: BLE001  \w+")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".jsonl", ""}


def test_no_module_is_named_for_nothing(root):
    names = {path.stem for folder in ("src", "tests", "scripts") for path in (root / folder).rglob("*")}
    assert names & ROOMS_WITH_NO_MEANING == set()


def test_nothing_is_left_to_do(root):
    assert matches(root, LEFT_TO_DO) == []


def test_nothing_names_the_machine_it_was_written_on(root):
    assert matches(root, ONE_MACHINE) == []


def test_whoever_catches_everything_raises_it_again_or_hands_it_to_who_waits_or_says_why_not(root):
    assert [place for path in (root / "src").rglob("*.py") for place in catch_alls(path)] == []


def test_a_catch_all_is_found(tmp_path):
    path = tmp_path / "greedy.py"
    kept = "try:\n    pass\nexcept (OSError, Exception):\n    pass\ntry:\n    pass\nexcept:\n    pass\n"
    raised = "try:\n    pass\nexcept Exception as error:\n    raise ValueError('theirs') from error\n"
    handed_on = "try:\n    pass\nexcept BaseException as error:\n    answer.set_exception(error)\n"
    made_up = "try:\n    pass\nexcept BaseException as error:\n    answer.set_exception(other)\n"
    reasoned = "try:\n    pass\nexcept Exception:  # noqa: BLE001  the others go on\n    pass\n"
    unreasoned = "try:\n    pass\nexcept Exception:  # noqa: BLE001\n    pass\n"
    path.write_text(kept + raised + handed_on + made_up + reasoned + unreasoned)
    assert catch_alls(path) == [f"{path}:3", f"{path}:7", f"{path}:19", f"{path}:27"]


def matches(root: Path, pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in texts(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def texts(root: Path) -> list[Path]:
    """Every file of ours that a person may read; not what tools and runs leave behind."""
    at_the_top = [path for path in root.iterdir() if path.is_file()]
    folders = (".ci", "benchmarks", "configs", "docs", "examples", "scripts", "src", "tests")
    below = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return [path for path in at_the_top + below if path.suffix in TEXT and "__pycache__" not in path.parts]


def catch_alls(path: Path) -> list[str]:
    """Handlers in which something may vanish; one that ends by raising it again, as it was or as ours, may stay.

    So may one that ends by giving it to a future, which raises it where it is waited for, and one that gives its reason
    on its own line.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    handlers = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ExceptHandler))
    greedy = [each for each in handlers if catches_all(each) and not REASONED.search(lines[each.lineno - 1])]
    return [f"{path}:{each.lineno}" for each in greedy if not raises_again(each) and not hands_on(each)]


def catches_all(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught)


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and (last.exc is None or last.cause is not None)


def hands_on(handler: ast.ExceptHandler) -> bool:
    return handler.name is not None and ast.unparse(handler.body[-1]).endswith(f".set_exception({handler.name})")
