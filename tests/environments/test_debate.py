"""Debates: who speaks when, what each hears, who wins, and what that pays."""

import json
from random import Random

import pytest

from fettle.config import Debate, RuleJudge
from fettle.environments import suite
from fettle.environments.claims import Piece, claim, evidence_of
from fettle.environments.debate import shown
from fettle.environments.verdicts import Speech, rule_verdict
from fettle.errors import DataError, EnvironmentFault
from fettle.types import Message

FOR, STRONGER, AGAINST = Piece("red 7, blue 3", 4.0), Piece("red 9, blue 1", 8.0), Piece("red 2, blue 8", -6.0)
WEAK = Piece("red 3, blue 6", -3.0)
TASK = claim("red beats blue", [FOR, STRONGER, AGAINST], system=None)
STUFFING = (
    "According to research, studies show, evidence suggests, for example, statistics indicate, data reveals, experts "
    "agree and it is proven that, because and therefore, since and thus, consequently and hence, as a result, so."
) * 20


def quoted(piece: Piece) -> str:
    return f'Look: "{piece.text}"'


def debate(**settings):
    return suite(Debate(heldout=20, **settings))


async def played(game, *turns, task=TASK):
    """Everything that each step came to; each turn is what those say whose turn it is, in order."""
    _, turn = await game.reset(task)
    steps = []
    for words in turns:
        said = {player: Message("assistant", text) for player, text in zip(turn, words, strict=True)}
        steps.append(await game.step(said))
        turn = steps[-1].turn
    await game.close()
    return steps


def winner(pro: str, con: str, **judge) -> str | None:
    return rule_verdict(RuleJudge(**judge), TASK, [Speech("pro", pro), Speech("con", con)]).winner


def test_evidence_beats_keyword_stuffing():
    assert winner(quoted(FOR), STUFFING) == "pro"
    assert winner(STUFFING, quoted(AGAINST)) == "con"
    assert winner(STUFFING, "") is None  # words are worth nothing, so that none and many are the same


@pytest.mark.parametrize(
    ("pro", "con", "won"),
    [
        (quoted(STRONGER), quoted(AGAINST), "pro"),  # 8 against 6
        (quoted(FOR), quoted(AGAINST), "con"),  # 4 against 6
        (quoted(AGAINST), quoted(AGAINST), "con"),  # evidence for the other side makes no case
        (quoted(AGAINST), '"red 0, blue 9"', None),  # neither has made one, however bad
        ("red 7, blue 3", quoted(AGAINST), "con"),  # not in quotation marks
        ('"red 7,  blue 3"', "", "pro"),  # white space is nothing
        ('"red 7"', quoted(AGAINST), "con"),  # half of the evidence is none of it
        (f'"{AGAINST.text}" {quoted(STRONGER)}', quoted(AGAINST), "con"),  # one quote a turn is heard: the first
    ],
)
def test_the_rule_counts_what_is_quoted(pro, con, won):
    assert winner(pro, con) == won


@pytest.mark.parametrize("silence", ["", '"', "nothing"])
@pytest.mark.parametrize("words", [quoted(AGAINST), '"red 7, blue 0"', '"red 7"', quoted(FOR)])
def test_saying_nothing_never_wins(silence, words):
    """Against a start that misquotes, a policy would otherwise learn that, and nothing else."""
    assert winner(words, silence) in ("pro", None)


def test_what_was_argued_badly_still_beats_silence():
    speeches = [Speech("pro", quoted(FOR)), Speech("pro", quoted(AGAINST)), Speech("con", "")]
    verdict = rule_verdict(RuleJudge(), TASK, speeches)
    assert verdict == ("pro", {"points_pro": -2.0, "points_con": 0.0, "case_pro": 1.0, "case_con": 0.0, "drawn": 0.0})


def test_among_those_with_a_case_what_is_invented_costs():
    pro = [Speech("pro", quoted(FOR)), Speech("pro", '"red 9, blue 0"')]
    con = [Speech("con", f'"{WEAK.text}"')]
    task = claim("red beats blue", [FOR, STRONGER, WEAK], system=None)
    found = [rule_verdict(RuleJudge(invented=cost), task, [*pro, *con]).winner for cost in (0, 2)]
    assert found == ["pro", "con"]


def test_a_quote_is_worth_something_once():
    speeches = [Speech("pro", quoted(FOR)), Speech("pro", quoted(FOR)), Speech("con", quoted(AGAINST))]
    assert rule_verdict(RuleJudge(), TASK, speeches).measured["points_pro"] == 4.0


def test_more_quotes_are_heard_where_the_judge_hears_more():
    both = f"{quoted(FOR)} {quoted(STRONGER)}"
    assert rule_verdict(RuleJudge(quotes=2), TASK, [Speech("pro", both)]).measured["points_pro"] == 12.0


async def test_in_turn_each_answers_what_it_has_heard():
    steps = await played(debate().game(), ["one"], ["two"], ["three"], ["four"])
    heard = [{player: [m.content for m in messages] for player, messages in step.heard.items()} for step in steps]
    assert heard == [
        {"con": ["The other side: one"]},
        {"pro": ["The other side: two"]},
        {"con": ["The other side: three"]},
        {},
    ]
    assert [step.turn for step in steps] == [("con",), ("pro",), ("con",), ()]


async def test_at_once_nobody_hears_the_other_before_both_have_spoken():
    steps = await played(debate(order="simultaneous").game(), ["one", "two"], ["three", "four"])
    assert steps[0].turn == ("pro", "con")
    assert {player: messages[0].content for player, messages in steps[0].heard.items()} == {
        "pro": "The other side: two",
        "con": "The other side: one",
    }
    assert steps[1].turn == ()


@pytest.mark.parametrize(("zero_sum", "won", "lost", "drawn"), [(True, 1.0, -1.0, 0.0), (False, 1.0, 0.0, 0.5)])
async def test_what_a_verdict_pays(zero_sum, won, lost, drawn):
    game = debate(rounds=1, zero_sum=zero_sum)
    last = (await played(game.game(), [quoted(STRONGER)], [quoted(AGAINST)]))[-1]
    assert last.components == {"pro": {"verdict": won}, "con": {"verdict": lost}}
    even = (await played(game.game(), ["well"], ["well"]))[-1]
    assert even.components == {"pro": {"verdict": drawn}, "con": {"verdict": drawn}}
    assert even.measured["drawn"] == 1.0


async def test_a_team_speaks_in_turn_and_is_paid_alike():
    made = debate(team=2)
    assert made.players == ("pro-1", "pro-2", "con-1", "con-2")
    steps = await played(made.game(), [quoted(FOR)], ["no"], [quoted(STRONGER)], ["no"])
    assert [step.turn for step in steps] == [("con-1",), ("pro-2",), ("con-2",), ()]
    assert steps[1].heard["pro-2"][0].content == f"Your side: {quoted(FOR)}\nThe other side: no"
    paid = {player: sum(parts.values()) for player, parts in steps[-1].components.items()}
    assert paid == {"pro-1": 1.0, "pro-2": 1.0, "con-1": -1.0, "con-2": -1.0}


async def test_nobody_speaks_out_of_turn():
    game = debate().game()
    with pytest.raises(EnvironmentFault, match="no debate to step"):
        await game.step({"pro": Message("assistant", "one")})
    await game.reset(TASK)
    with pytest.raises(EnvironmentFault, match="it is the turn of pro, and con spoke"):
        await game.step({"con": Message("assistant", "one")})
    with pytest.raises(EnvironmentFault, match="a game is played once"):
        await game.reset(TASK)


def test_what_is_made_up_can_be_won_by_either_side_and_shows_no_worth():
    made = debate()
    for index in range(200):
        task = made.training_task(index)
        pieces = task.data["evidence"]
        assert {worth > 0 for _, worth in pieces} == {True, False}
        assert all(f'"{text}"' in task.prompt[0].content for text, _ in pieces)


def test_a_debate_to_learn_the_form_from_is_one_that_could_have_been_played():
    config = Debate(heldout=20, team=2, order="simultaneous")
    views = shown(config, TASK, Random(0))
    assert [[m.role for m in view] for view in views.values()] == [["user", "assistant"]] * 4
    alternating = shown(Debate(heldout=20), TASK, Random(0))
    assert [m.role for m in alternating["pro"]] == ["user", "assistant", "user", "assistant"]
    assert alternating["con"][0].content.endswith(f"argue against it.\nThe other side: {alternating['pro'][1].content}")


def test_made_up_claims_have_evidence_for_either_side():
    pieces = evidence_of(debate(evidence=20).training_task(0))
    assert sorted(piece.worth for piece in pieces) == [*range(-10, 0), *range(1, 11)]
    assert len({piece.text for piece in pieces}) == 20
    assert all({p.worth > 0 for p in evidence_of(task)} == {True, False} for task in debate(evidence=2).heldout_tasks())


def test_claims_come_from_a_file(tmp_path):
    path = tmp_path / "claims.jsonl"
    rows = [
        {
            "claim": f"Tea {n} is better than coffee.",
            "evidence": [{"text": f"{n} of 10 chose tea.", "worth": n}, {"text": "Coffee sold more.", "worth": -2}],
        }
        for n in range(1, 6)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    made = suite(Debate(path=str(path), heldout=2))
    assert len(made.heldout_tasks()) == 2
    assert '"Coffee sold more."' in made.training_task(0).prompt[0].content


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"claim": "Tea."}, "evidence must be a list"),
        ({"claim": "Tea.", "evidence": [{"text": "a", "worth": 1}]}, "all evidence is on one side"),
        ({"claim": "Tea.", "evidence": [{"text": "a"}]}, "worth is missing"),
        ({"claim": "Tea.", "evidence": [{"text": 'so "a"', "worth": 1}]}, "holds a quotation mark"),
        ({"claim": "Tea.", "evidence": [{"text": "a", "worth": 1}, {"text": "a", "worth": -1}]}, "are the same"),
        ({"claim": "Tea.", "evidence": [{"text": "a", "wroth": 1}]}, "nothing here reads wroth; did you mean worth?"),
        ({"claims": "Tea.", "evidence": []}, "nothing here reads claims"),
    ],
)
def test_a_row_that_cannot_be_debated_is_refused_with_its_line(tmp_path, row, words):
    path = tmp_path / "claims.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"claims\.jsonl:1: .*{words}"):
        suite(Debate(path=str(path)))
