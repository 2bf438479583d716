"""Search: what shares rare words comes first, the same way every time."""

import json

import pytest

from fettle.environments.tools import Corpus, Document, ToolMistake
from fettle.environments.tools.corpus import read_corpus
from fettle.errors import DataError

PLACES = Corpus(
    [
        Document("Belcor", "Belcor was founded in 1200. It is a town."),
        Document("Danfen", "Danfen was founded in 1300. It is a town, a town, a town."),
        Document("", "Nothing of note."),
    ]
)


def test_the_document_with_the_rare_word_comes_first():
    assert PLACES.ranked("When was DANFEN founded?")[0].title == "Danfen"
    assert PLACES.search("Belcor founded").splitlines()[0] == "Belcor: Belcor was founded in 1200. It is a town."


def test_more_of_a_word_counts_for_more_and_a_longer_text_for_less():
    once, twice = Document("", "fish and chips"), Document("", "fish and fish")
    long = Document("", "fish " + "and chips " * 20)
    assert Corpus([long, once, twice]).ranked("fish") == [twice, once, long]


def test_equals_keep_their_order():
    same = [Document(str(place), "fish") for place in range(4)]
    assert Corpus(same).ranked("fish 9") == same


def test_what_no_document_has_finds_nothing():
    assert PLACES.search("zebra") == "nothing was found"
    with pytest.raises(ToolMistake, match="no word"):
        PLACES.search(" ?! ")


def test_a_corpus_is_read_from_a_file(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ({"text": "one fish"}, {"title": "B", "text": "two"})))
    assert read_corpus(str(path)).search("two") == "B: two"


@pytest.mark.parametrize(("content", "why"), [("", "is empty"), ('{"texts": "x"}', "texts"), ('{"text": 3}', "text")])
def test_a_corpus_that_is_none_is_named(tmp_path, content, why):
    path = tmp_path / "corpus.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=why):
        read_corpus(str(path))
