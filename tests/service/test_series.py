"""Series of a run: whatever was added is read again, from the step on that is asked for."""

from random import Random

import pytest

from fettle.errors import TooLargeError
from fettle.service.series import STRIDE, Series


def rows_of(steps: list[int]) -> list[dict[str, object]]:
    return [{"step": step, "number": number, "text": "x" * 200} for number, step in enumerate(steps)]


async def test_rows_of_later_steps_are_found_wherever_they_lie(tmp_path):
    random = Random("steps")
    rows = rows_of([number + random.randint(-300, 300) for number in range(2000)])
    series = Series(tmp_path / "metrics.jsonl", most_bytes=1 << 30)
    for start in range(0, len(rows), 500):
        series.add(rows[start : start + 500])
        for step in (-1000, -1, 250, 700, 1500, 1999, 5000):
            assert series.after(step) == [row for row in rows[: start + 500] if row["step"] > step]


async def test_what_belongs_to_earlier_steps_is_read_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    series = Series(path, most_bytes=1 << 30)
    rows = rows_of(list(range(2000)))
    series.add(rows)
    assert series.after(-1) == rows
    with path.open("r+b") as file:
        file.write(b"-" * STRIDE)  # whoever reads it again finds no rows here
    assert series.after(1900) == rows[1901:]
    assert len(series.after(-1)) < len(rows)
    series.forget()
    assert series.after(1900) == rows[1901:]


async def test_clients_may_add_so_much_and_steps_are_told_all_the_same(tmp_path):
    series = Series(tmp_path / "metrics.jsonl", most_bytes=1000)
    series.add(rows_of([1, 2]))
    with pytest.raises(TooLargeError, match="metrics of a run may be"):
        series.add(rows_of([3, 4, 5]))
    series.add_step({"step": 9, "policy/grad_norm": 0.5, "text": "x" * 1000})
    assert [row["step"] for row in series.after(0)] == [1, 2, 9]


async def test_the_pages_of_a_series_are_all_of_it(tmp_path):
    series = Series(tmp_path / "metrics.jsonl", most_bytes=1 << 30)
    rows = rows_of([3, 1, 2, *[5] * 20, 4])
    series.add(rows)
    for most, most_bytes in ((7, 1 << 30), (1, 1 << 30), (100, 1000), (100, 1)):
        found, more = [], True
        while more:
            page, more = series.page(1, skip=len(found), most=most, most_bytes=most_bytes)
            assert 0 < len(page) <= min(most, most_bytes // 200 + 1)
            found += page
        assert found == [row for row in rows if row["step"] > 1]
