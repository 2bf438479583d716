"""Mathematics from a file: rows as GSM8K and MATH have them, and what their answers are."""

from pathlib import Path

from fettle.environments.generated import prompt
from fettle.environments.math_answers import check_readable
from fettle.errors import DataError, nearest
from fettle.rewards.mathematics import final_answer
from fettle.rows import Row, rows
from fettle.types import Task

QUESTIONS = ("question", "problem")
MARK = "####"


def listed(path: str, *, system: str | None, source: str) -> dict[str, Task]:
    """The problems of a file by their places, in order.

    Raises:
        DataError: it is not there, or a row lacks its question or its answer, or has one that is not one answer.
    """
    if not Path(path).is_file():
        raise DataError(
            f"there is no file {path}: put the problems there, a JSON object a line with question and answer (as"
            " train.jsonl of GSM8K, github.com/openai/grade-school-math) or with problem and solution (as MATH,"
            " github.com/hendrycks/math); nothing is downloaded, and nothing takes their place"
        )
    tasks = {row.place: _task(row, system, source) for row in rows(path)}
    check_readable(tasks)
    return tasks


def _task(row: Row, system: str | None, source: str) -> Task:
    given = [name for name in QUESTIONS if name in row.fields]
    if len(given) != 1:
        wrong = "question or problem, and not both" if given else f"a question or a problem{_renamed(row)}"
        raise DataError(f"{row.place}: give {wrong}")
    answer = _answer(row)
    kept = {name: value for name, value in row.fields.items() if name not in (*QUESTIONS, "answer")}
    return Task(prompt(system, row.text(given[0])), {**kept, "answer": answer}, source)


def _answer(row: Row) -> str:
    """What is expected: in the last box of the solution, after the mark, or the answer as it stands."""
    answer = row.fields.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    if isinstance(answer, str) and MARK in answer:
        return answer.rpartition(MARK)[2].strip()
    if isinstance(answer, str) and answer.strip():
        return (final_answer(answer) or answer).strip()
    boxed = final_answer(row.text("solution")) if "solution" in row.fields else None
    if boxed is None:
        raise DataError(
            f"{row.place}: there is no answer: give answer (alone, or after {MARK}), or a solution with \\boxed{{...}}"
        )
    return boxed


def _renamed(row: Row) -> str:
    meant = next((field for field in row.fields if nearest(field, QUESTIONS)), None)
    return f" (rename {meant}?)" if meant else ""
