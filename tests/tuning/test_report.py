"""A study's standing: the best, what mattered, the two that were compared, as table, JSON, CSV and picture."""

import csv
import json

import pytest
from scipy import stats

from fettle.tuning import BEST, Outcome, standing, work, write_standing
from fettle.tuning.plots import draw_standing
from tests.tuning.conftest import new_study


def steep(candidate) -> Outcome:
    """Only the size matters; the fourth trial is broken."""
    if candidate.number == 3:
        raise ValueError("no")
    return Outcome(value=float(candidate.parameters["size"]), seconds=1.0)


def compared(candidate) -> Outcome:
    gain = 0.25 if candidate.parameters["settings"] == BEST else 0.0
    return Outcome(value=candidate.parameters["seed"] ** 2 + gain)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A study that is over, its folder, and how it stands."""
    desk = new_study(tmp_path_factory.mktemp("ended"), trials=12, sampler="random", seeds=(1, 2, 4))
    work(desk.search("me"), steep, lambda _: None)
    best = desk.search("").best()
    work(desk.finals(best, "me"), compared, lambda _: None)
    found = standing(desk.study, desk.search("").all(), best, desk.finals(best, "").all())
    return desk, found


def test_the_best_is_the_earliest_of_equals_and_what_mattered_is_told(ended):
    _, found = ended
    sizes = [line.parameters["size"] if line.state == "finished" else 0 for line in found.lines]
    assert found.best == sizes.index(max(sizes))
    assert found.importance["size"] > found.importance["rate"]
    assert sum(found.importance.values()) == pytest.approx(1)
    assert found.lines[3].told == "failed: ValueError: no"


def test_both_are_run_on_the_same_seeds_and_told_with_students_interval(ended):
    _, found = ended
    assert found.sides["recipe"].values == {1: 1.0, 2: 4.0, 4: 16.0}
    for side in found.sides.values():
        values = list(side.values.values())
        assert side.mean == pytest.approx(sum(values) / 3)
        spread = stats.sem(values)
        assert side.high - side.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * spread, rel=1e-3)
    assert found.sides["difference"].low == pytest.approx(0.25)


def test_programs_find_the_same(ended):
    desk, found = ended
    write_standing(desk.folder, desk.study, found)
    told = json.loads(desk.folder.summary_path.read_text())
    assert (told["metric"], told["best"], len(told["trials"])) == ("heldout/reward", found.best, 12)
    assert told["trials"][3]["fault"] == "ValueError: no"
    with desk.folder.table_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["size"] for row in rows] == [str(line.parameters["size"]) for line in found.lines]
    assert rows[3]["heldout/reward"] == ""


def test_it_is_drawn_once_there_is_a_score(ended, begun):
    desk, found = ended
    draw_standing(desk.folder, desk.study, found)
    assert desk.folder.chart_path.read_bytes().startswith(b"\x89PNG")
    fresh = begun()
    draw_standing(fresh.folder, fresh.study, standing(fresh.study, [], None, []))
    assert not fresh.folder.chart_path.exists()
