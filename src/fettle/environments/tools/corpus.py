"""A corpus that is searched: documents in memory, ranked by the words they share with a question."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fettle.environments.tools.tool import ToolMistake
from fettle.errors import DataError
from fettle.rows import rows

WORD = re.compile(r"\w+")
MOST_FOUND = 3
SHOWN = 800
"""Characters of a document that are shown at most."""
SATURATION, LENGTH = 1.5, 0.75
"""k1 and b of Robertson and Zaragoza, 2009 (The Probabilistic Relevance Framework: BM25 and Beyond)."""


@dataclass(frozen=True, slots=True)
class Document:
    """What can be found."""

    title: str
    text: str


class Corpus:
    """Documents and an index of their words. The same question finds the same documents in the same order."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = tuple(documents)
        counted = [Counter(_words(f"{document.title} {document.text}")) for document in self.documents]
        self._lengths = [sum(counts.values()) for counts in counted]
        self._mean = max(1.0, sum(self._lengths) / max(1, len(counted)))
        self._places: dict[str, list[tuple[int, int]]] = {}
        for place, counts in enumerate(counted):
            for word, count in counts.items():
                self._places.setdefault(word, []).append((place, count))

    def ranked(self, question: str) -> Sequence[Document]:
        """Those that share a word with ``question``, best first; of equals the one that stands first.

        BM25: Σ_words idf(w) · f (k1 + 1) / (f + k1 (1 - b + b |d| / mean |d|)),
        idf(w) = ln(1 + (N - n(w) + 1/2) / (n(w) + 1/2))
        """
        scores: dict[int, float] = {}
        for word in sorted(set(_words(question))):
            found = self._places.get(word, [])
            rarity = math.log(1 + (len(self.documents) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                spread = SATURATION * (1 - LENGTH + LENGTH * self._lengths[place] / self._mean)
                scores[place] = scores.get(place, 0.0) + rarity * count * (SATURATION + 1) / (count + spread)
        return [self.documents[place] for place in sorted(scores, key=lambda place: (-scores[place], place))]

    def search(self, query: str) -> str:
        """Finds the documents that best match some words.

        Raises:
            ToolMistake: there is nothing to look for.
        """
        if not _words(query):
            raise ToolMistake("there is no word to look for in the query")
        found = self.ranked(query)[:MOST_FOUND]
        shown = (f"{document.title}: {document.text}" if document.title else document.text for document in found)
        return "\n".join(text[:SHOWN] for text in shown) or "nothing was found"


def read_corpus(path: str) -> Corpus:
    """The documents of a file: one JSON object a line, with ``text`` and perhaps ``title``.

    Raises:
        DataError: the file cannot be used, or holds none.
    """
    found = []
    for row in rows(path):
        row.check_keys(("title", "text", "id"))
        found.append(Document(row.text("title") if "title" in row.fields else "", row.text("text")))
    if not found:
        raise DataError(f"{path} is empty: give one document a line, with text and perhaps title")
    return Corpus(found)


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
