"""Curves: rows of metrics in, panels of points out."""

import json

from fettle.service.faces.console.curves import MOST_POINTS, last, merged, panels


def test_a_panel_holds_what_its_run_speaks_of():
    rows = [{"step": 1, "loss": 2.0}, {"step": 1, "reward/mean": 0.5}, {"step": 2, "loss": 1.0}]
    found = {panel["title"]: panel for panel in panels(rows)}
    assert found.keys() == {"Reward", "Loss"}
    assert found["Loss"]["steps"] == [1, 2]
    assert found["Loss"]["lines"] == [{"label": "training", "values": [2.0, 1.0]}]
    assert found["Reward"]["steps"] == [1]


def test_lines_of_one_panel_share_their_steps():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "heldout/loss": 3.0}]
    [panel] = panels(rows)
    assert panel["steps"] == [1, 2]
    assert [line["values"] for line in panel["lines"]] == [[2.0, None], [None, 3.0]]


def test_speed_is_tokens_over_seconds():
    [row] = merged([{"step": 1, "tokens/trained": 100, "time/step": 0.5}])
    assert row["speed/tokens_per_second"] == 200


def test_what_is_no_number_leaves_a_gap_and_valid_json():
    rows = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": None}]
    [panel] = panels(rows)
    assert panel["steps"] == [2]
    json.dumps(panel, allow_nan=False)


def test_long_curves_are_thinned_and_keep_their_newest_point():
    [panel] = panels([{"step": step, "loss": 1.0} for step in range(10 * MOST_POINTS + 1)])
    assert len(panel["steps"]) <= MOST_POINTS + 1
    assert panel["steps"][-1] == 10 * MOST_POINTS


def test_the_last_value_is_the_newest_that_is_a_number():
    rows = [{"step": 1, "reward": 0.25}, {"step": 2, "reward": float("inf")}]
    assert last(rows, "reward/mean", "reward") == 0.25
    assert last(rows, "loss") is None


def test_no_rows_are_no_panels():
    assert panels([]) == []
