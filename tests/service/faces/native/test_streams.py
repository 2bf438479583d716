"""What is said of a text while it is drawn."""

from random import Random

import pytest

from fettle.config import ServedModel
from fettle.service.faces.native.streams import _Tail
from fettle.service.models import Model, Models


@pytest.fixture
def model(tiny_model: str) -> Model:
    return Models((ServedModel(name="tiny", path=tiny_model),)).named("tiny")


@pytest.mark.parametrize("text", ["one two three", "naïve 🙂🙂 漢字 and on", " \n  spaces  \t here "])
def test_the_pieces_put_together_are_the_whole(model, text):
    tail, tokens = _Tail(model), model.tokens_of(text)
    pieces = [tail.added(token) for token in tokens]
    assert "".join(pieces) + tail.rest() == text
    assert "".join(pieces)


def test_whatever_is_drawn_what_is_said_goes_on_to_the_whole(model):
    random = Random("tokens")
    for _ in range(20):
        tokens = [random.randrange(model.vocabulary) for _ in range(60)]
        tail = _Tail(model)
        said = "".join(map(tail.added, tokens))
        whole = model.text_of(tokens, skip_special_tokens=True)
        assert len(said + tail.rest()) == pytest.approx(len(whole), abs=3 * whole.count("\N{REPLACEMENT CHARACTER}"))


def test_a_token_takes_no_longer_the_more_there_are_before_it(model, monkeypatch):
    decoded: list[int] = []
    real = Model.text_of

    def counted(self, tokens, **settings):
        decoded.append(len(tokens))
        return real(self, tokens, **settings)

    monkeypatch.setattr(Model, "text_of", counted)
    tail, tokens = _Tail(model), model.tokens_of("one two three four " * 200)
    for token in tokens:
        tail.added(token)
    assert max(decoded) < 20 < len(tokens)
