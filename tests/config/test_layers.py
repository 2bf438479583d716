from fettle.config.layers import laid_over


def test_mappings_merge_and_everything_else_replaces():
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert laid_over(below, {"a": {"c": [9]}, "d": {"e": 4}}) == {"a": {"b": 1, "c": [9]}, "d": {"e": 4}}


def test_what_are_no_indices_replace_a_list():
    assert laid_over({"a": [1]}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert laid_over({"a": [1]}, {"a": {"1": 2}}) == {"a": {"1": 2}}


def test_what_lies_below_is_left_as_it_was():
    below = {"a": {"b": 1}, "c": [{"d": 1}]}
    laid_over(below, {"a": {"b": 2}, "c": {"0": {"d": 2}}})
    assert below == {"a": {"b": 1}, "c": [{"d": 1}]}


def test_another_type_starts_afresh():
    assert laid_over({"loss": {"type": "ppo", "clip_low": 0.1}}, {"loss": {"type": "cispo"}}) == {
        "loss": {"type": "cispo"}
    }


def test_the_same_type_or_none_goes_on():
    below = {"loss": {"type": "ppo", "clip_low": 0.1}}
    for above in ({"clip_high": 0.3}, {"type": "ppo", "clip_high": 0.3}):
        assert laid_over(below, {"loss": above}) == {"loss": {"type": "ppo", "clip_low": 0.1, "clip_high": 0.3}}


def test_a_type_over_settings_that_named_none_keeps_them():
    assert laid_over({"schedule": {"warmup_steps": 5}}, {"schedule": {"type": "cosine"}}) == {
        "schedule": {"warmup_steps": 5, "type": "cosine"}
    }


def test_indices_change_items_of_a_list():
    below = {"stages": [{"type": "sft", "steps": 1}, {"type": "rl", "environments": [{"type": "jsonl", "path": "a"}]}]}
    above = {"stages": {"1": {"environments": {"0": {"path": "b"}}}}}
    assert laid_over(below, above)["stages"] == [
        {"type": "sft", "steps": 1},
        {"type": "rl", "environments": [{"type": "jsonl", "path": "b"}]},
    ]
