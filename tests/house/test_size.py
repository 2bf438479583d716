"""Every file and function fits in the head."""

import ast
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60


def test_no_file_is_longer_than_400_lines(root):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(root)}
    assert [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES] == []


def test_no_function_is_longer_than_60_lines(root):
    assert [place for path in sources(root) for place in long_functions(path)] == []


def test_a_long_function_is_found(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("def short():\n    pass\n\ndef long():\n" + "    x = 1\n" * FUNCTION_LINES)
    assert long_functions(path) == [f"{path}:4 long: {FUNCTION_LINES + 1} lines"]


def sources(root: Path) -> list[Path]:
    found = [*(root / "src").rglob("*.py"), *(root / "scripts").rglob("*.py"), root / "run"]
    assert len(found) > 10
    return found


def long_functions(path: Path) -> list[str]:
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = ((node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{path}:{node.lineno} {node.name}: {lines} lines" for node, lines in lengths if lines > FUNCTION_LINES]
