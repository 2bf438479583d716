import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.config.document import read, written
from fettle.errors import ConfigError


def tree(text):
    document = read(text, "line {}".format)
    assert document.problems == []
    return document.tree


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n", "On", "NO"])
def test_only_true_and_false_are_switches(word):
    assert tree(f"a: {word}") == {"a": word}
    assert tree("a: [true, False]") == {"a": [True, False]}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("0", 0),
        ("-12", -12),
    ],
)
def test_numbers_are_read_as_people_write_them(text, number):
    found = tree(f"a: {text}")["a"]
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    "text", ["2024-01-01", "1:30", "010", "1_000", "0x10", "1e", "nan", "=", "1.2.3", "Qwen/Qwen3-0.6B"]
)
def test_other_words_stay_texts(text):
    assert tree(f"a: {text}") == {"a": text}


def test_quotes_make_a_text_of_anything():
    assert tree("a: ['1', \"true\", '1e-5', '~']") == {"a": ["1", "true", "1e-5", "~"]}


def test_keys_are_texts():
    assert tree("1: a\non: b\n~: c") == {"1": "a", "on": "b", "~": "c"}


def test_an_alias_stands_for_what_it_names():
    assert tree("a: &sums {digits: 2}\nb: [*sums]") == {"a": {"digits": 2}, "b": [{"digits": 2}]}


def test_every_setting_has_a_place():
    document = read("a:\n  b: 1\n  c:\n  - 2\n  - d: 3\n", "line {}".format)
    assert document.places == {
        (): "line 1",
        ("a",): "line 1",
        ("a", "b"): "line 2",
        ("a", "c"): "line 3",
        ("a", "c", "0"): "line 4",
        ("a", "c", "1"): "line 5",
        ("a", "c", "1", "d"): "line 5",
    }
    assert document.place(("a", "b", "nowhere")) == "line 2"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice, first at line 1: keep one"),
        ("a:\n  b: 1\n  b: 2", "line 3: 'a.b' is given twice, first at line 2: keep one"),
        ("a: {b: 1, b: 2}", "line 1: 'a.b' is given twice: keep one"),
        ("a: &x\n- *x", "line 1: 'a.0' holds itself, by an alias: write it out"),
        ("a: !!python/name:os.system", "line 1: !!python/name:os.system is not for settings: leave the tag out"),
        ("a: !!set {b}", "line 1: !!set is not for settings: leave the tag out"),
        ("a: !!int word", "line 1: !!int is not for settings: leave the tag out"),
        ("{[a]: 1}", "line 1: a list or a mapping stands where a key should: a key is a word"),
    ],
)
def test_what_settings_cannot_be_is_noted(text, problem):
    assert read(text, "line {}".format).problems == [problem]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "line 2: this is not YAML: .*"),
        ("a: b: c", "line 1: this is not YAML: mapping values are not allowed here"),
        ("a: 1\n\tb: 2", "line 2: this is not YAML: .*"),
        ("a: *x", "line 1: this is not YAML: found undefined alias 'x'"),
        ("a: 1\n---\nb: 2", "line 2: this is not YAML: .* another document"),
        ("a: 1\nb: \x00", r"line 2: this is not YAML: it holds U\+0000"),
    ],
)
def test_what_is_not_yaml_is_one_sentence_with_its_line(text, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        read(text, "line {}".format)


TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ["on", "1e5", "1e-5", "010", "0o7", "~", "", "<<", "null", "1:30", " a", "a\n b\n", "\x85", "a\u2028b", "\r"]
    ),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False))
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@given(TREES)
def test_what_is_written_reads_back_equal(given_tree):
    assert tree(written(given_tree)) == given_tree


def test_equal_parts_are_written_out_each_time():
    part = {"digits": 2}
    assert written({"a": part, "b": part}) == "a:\n  digits: 2\nb:\n  digits: 2\n"
