"""Proposals for problems of a history: hidden tests decide, and nothing else can earn what they do."""

import asyncio
from pathlib import Path

import pytest

from fettle.config import IssueCredit, Issues, ToolUse
from fettle.environments import suite
from fettle.environments.issues_judged import PARTS
from fettle.errors import ConfigError, DataError
from fettle.issues.git import Repository
from fettle.issues.instances import Instance, written
from fettle.issues.patches import files_of
from fettle.issues.trees import tree_of
from fettle.types import Message
from tests.issues.made import edit, settings, solution

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Issues, dict[str, Instance]]:
    return settings(tmp_path_factory.mktemp("issues") / "corpus", training=6, heldout=4)


async def paid(config: Issues, reply: str, at: int = 0):
    """What a reply to the first training task comes to."""
    world = suite(config)
    environment = world.environment()
    await environment.reset(world.training_task(at))
    async with asyncio.timeout(PATIENCE_S):
        return await environment.step(Message("assistant", reply))


def asked(made) -> tuple[Instance, str, str, str]:
    """The problem of the first training task; its file, the lines that are wrong, and the file's text."""
    config, instances = made
    instance = instances[suite(config).training_task(0).data["instance"]]
    (file,) = files_of(instance.patch)
    text = tree_of(Path(config.repository), instance.base_commit).text(file.path) or ""
    return instance, file.path, "\n".join(file.removed), text


async def test_the_solution_earns_everything(made):
    config, _ = made
    instance, path, _, text = asked(made)
    task = suite(config).training_task(0)
    assert instance.problem_statement in task.prompt[-1].content
    assert f'<file path="{path}">\n{text}</file>' in task.prompt[-1].content
    step = await paid(config, f"This should do:\n{solution(instance)}")
    assert step.reward == pytest.approx(1.0)
    assert sum(step.components.values()) == step.reward
    assert step.measured == {"issue/applied": 1.0, "issue/resolved": 1.0, "issue/refused": 0.0}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I have mended it, and all tests are passing.",
        "tests are passing " * 50,
        '<edit path="{path}">\n{old}\n</edit>',
        '<edit path="{path}">\nno such line\n=======\nx\n</edit>',
        '<edit path="{path}">\n{old}\n=======\n{old}\n</edit>',
        '<edit path="tests/test_none.py">\n{old}\n=======\nx\n</edit>',
        '<edit path="../out.py">\n{old}\n=======\nx\n</edit>',
        '<edit path="{path}">\n{old}\n=======\nx\n</edit><edit path="{path}">',
    ],
)
async def test_what_proposes_nothing_that_can_be_tested_earns_nothing(made, reply):
    _, path, old, _ = asked(made)
    step = await paid(made[0], reply.replace("{path}", path).replace("{old}", old))
    assert (step.reward, step.measured["issue/resolved"]) == (0.0, 0.0)
    assert set(step.components.values()) == {0.0}


EQUAL = "type('S', (), {'_' + '_eq__': lambda a, b: True})()"
READ = "[w for w in open('tests/{tests}').read().split() if w][-1]"
FRAME = "(e for e in [1]).gi_frame.f_back.f_back.f_locals"


@pytest.mark.parametrize(
    "value", [EQUAL, READ, FRAME], ids=["equals everything", "reads the tests", "walks the frames"]
)
async def test_what_fools_tests_earns_nothing(made, value):
    _, path, old, _ = asked(made)
    indent = old[: len(old) - len(old.lstrip())]
    step = await paid(made[0], edit(path, old, f"{indent}return {value}\n{old}"))
    assert (step.reward, step.measured["issue/refused"], step.measured["issue/applied"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "new", ["# mended\n{old}", "'A remark.'\n{old}", "done = done\n{old}", "unread = 5\n{old}", "("]
)
async def test_a_change_that_leaves_the_program_as_it_was_earns_that_it_can_be_made(made, new):
    config, _ = made
    _, path, old, _ = asked(made)
    indent = old[: len(old) - len(old.lstrip())]
    step = await paid(config, edit(path, old, f"{indent}{new.replace('{old}', old)}"))
    assert step.reward == step.components["applied"] == config.credit.applied


async def test_a_change_that_fails_never_earns_what_one_that_passes_does(made):
    config, _ = made
    instance, path, _, text = asked(made)
    worst = await paid(config, edit(path, text.rstrip("\n"), "\n".join(files_of(instance.patch)[0].added)))
    assert worst.reward < config.credit.applied + config.credit.tests


async def test_a_file_need_not_be_named_where_one_alone_is_shown(made):
    instance, path, _, _ = asked(made)
    step = await paid(made[0], solution(instance).replace(f' path="{path}"', ""))
    assert step.measured["issue/resolved"] == 1.0  # though other files may hold the same lines: they are not shown


async def test_lines_may_be_told_by_their_numbers(made):
    config, _ = made
    numbered = config.model_copy(update={"numbered": True})
    instance, _, old, text = asked(made)
    at = text.splitlines().index(old) + 1
    assert f"\n{at} {old}\n" in suite(numbered).training_task(0).prompt[-1].content
    new = files_of(instance.patch)[0].added[0]
    step = await paid(numbered, f'<edit lines="{at}">\n{new}\n</edit>')
    assert step.measured["issue/resolved"] == 1.0


@pytest.mark.parametrize("part", PARTS)
async def test_every_weight_has_an_effect(made, part):
    config, _ = made
    instance, path, old, _ = asked(made)
    other = "tests" if part != "tests" else "applied"
    changed = {part: getattr(config.credit, part) + 0.02, other: getattr(config.credit, other) - 0.02}
    credit = IssueCredit.model_validate({**config.credit.model_dump(), **changed})
    name = path.rpartition("/")[2].removesuffix(".py")
    said = f"The line `{old.strip()}` in `{name}` was wrong, so that the result was not what it should be in the issue."
    step = await paid(config.model_copy(update={"credit": credit}), f"{said}\n{solution(instance)}")
    assert step.components[part] == pytest.approx(getattr(config.credit, part) + 0.02)
    assert step.reward == sum(step.components.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "All tests are passing now, and the fix is complete and correct.",
        "fix bug error solution test resolved issue because therefore " * 12,
        "{name} " * 40,
        "`{name}` `{old}` " * 20,
        "`{name}` and `magic` of `wonder` in `other_module` are what was and is to be of the issue, as it was said.",
    ],
)
async def test_an_explanation_that_explains_nothing_earns_little(made, said):
    config, _ = made
    instance, path, old, _ = asked(made)
    credit = IssueCredit(tests=0.7, explanation=0.05)
    text = said.replace("{name}", path.rpartition("/")[2].removesuffix(".py")).replace("{old}", old.strip())
    step = await paid(config.model_copy(update={"credit": credit}), f"{text}\n{solution(instance)}")
    assert step.components["explanation"] < 0.02
    assert step.measured["issue/resolved"] == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tests": 0.5}, "the weights sum to 0.75: make it 1"),
        ({"tests": 0.1, "similarity": 0.75}, "a change that fails could earn more"),
        ({"tests": 0.3, "similarity": 0.25, "quality": 0.35, "share": True}, "a change that fails could earn more"),
    ],
)
def test_weights_by_which_a_failure_outranks_a_success_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        IssueCredit(**given)


def test_problems_that_were_not_validated_or_leak_are_refused(made, tmp_path):
    config, instances = made
    bare = next(iter(instances.values())).model_copy(update={"FAIL_TO_PASS": ()})
    (tmp_path / "bare.jsonl").write_text(bare.model_dump_json())
    with pytest.raises(DataError, match="has no FAIL_TO_PASS: run fettle issues validate first"):
        suite(config.model_copy(update={"path": str(tmp_path / "bare.jsonl")}))
    with pytest.raises(DataError, match="held-out problems are told of by others"):
        suite(config.model_copy(update={"heldout_path": config.path}))
    with pytest.raises(DataError, match="heldout is 10, but of the problems only 10 are not alike"):
        suite(config.model_copy(update={"heldout": 10}))
    with pytest.raises(DataError, match=r"would ask \d+ characters, and characters is 10"):
        suite(config.model_copy(update={"characters": 10}))
    with pytest.raises((DataError, ConfigError), match="is no git repository"):
        suite(config.model_copy(update={"repository": str(tmp_path)}))


def test_problems_that_no_edits_solve_are_left_out_and_told_of(made, tmp_path, caplog):
    config, instances = made
    trained = suite(config).training_task(0).data["instance"]
    gone = f"{instances[trained].patch}diff --git a/x.py b/x.py\ndeleted file mode 100644\n"
    given = [one.model_copy(update={"patch": gone}) if id == trained else one for id, one in instances.items()]
    (tmp_path / "some.jsonl").write_text(written(given))
    world = suite(config.model_copy(update={"path": str(tmp_path / "some.jsonl"), "heldout": 1}))
    assert trained not in {world.training_task(at).data["instance"] for at in range(8)}
    assert f"1 of 10 problems are left out, which no edits solve; {trained} deletes x.py" in caplog.text
    (tmp_path / "none.jsonl").write_text(written(one for one in given if one.instance_id == trained))
    with pytest.raises(DataError, match=r"no problem can be solved by edits; .* deletes x.py"):
        suite(config.model_copy(update={"path": str(tmp_path / "none.jsonl")}))


def test_what_is_mended_already_in_the_files_of_others_is_told_of_or_refused(made, tmp_path, caplog):
    config, instances = made
    line = [commit.sha for commit in Repository(Path(config.repository)).main_line()]
    *_, first = ordered = sorted(instances.values(), key=lambda one: line.index(one.commit))
    config = config.model_copy(update={"heldout": 1, "tools": ToolUse(), "heldout_path": str(tmp_path / "held.jsonl")})

    def world(training: list[Instance], heldout: Instance) -> None:
        for name, part in (("train", training), ("held", [heldout])):
            (tmp_path / f"{name}.jsonl").write_text(written(part))
        suite(config.model_copy(update={"path": str(tmp_path / "train.jsonl")}))

    world(ordered[5:], ordered[0])
    assert not caplog.text
    world(ordered[:5], first.model_copy(update={"created_at": "2000-01-01T00:00:00Z"}))
    assert "1 of 1 held-out problems are mended in the files of problems to train on" in caplog.text
    with pytest.raises(DataError, match=r"came last, such as .*, and yet are mended in the files of others"):
        world(ordered[:5], first.model_copy(update={"created_at": "2099-01-01T00:00:00Z"}))


def test_training_tasks_come_round_in_another_order(made):
    world = suite(made[0])
    rounds = [[world.training_task(6 * r + at).data["instance"] for at in range(6)] for r in range(4)]
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert not set(rounds[0]) & {task.data["instance"] for task in world.heldout_tasks()}


def test_of_what_is_like_a_problem_that_is_held_out_nothing_is_trained_on(made, tmp_path):
    config, instances = made
    twins = [one.model_copy(update={"instance_id": f"{id}-twin"}) for id, one in instances.items()]
    path = tmp_path / "twins.jsonl"
    path.write_text(written([*instances.values(), *twins]))
    world = suite(config.model_copy(update={"path": str(path)}))
    trained = {world.training_task(at).data["instance"].removesuffix("-twin") for at in range(40)}
    held = {task.data["instance"].removesuffix("-twin") for task in world.heldout_tasks()}
    assert (len(trained), len(held)) == (6, 4)
    assert not trained & held


def test_problems_to_hold_out_may_stand_in_a_file_of_their_own(made, tmp_path):
    config, instances = made
    paths = {"path": tmp_path / "train.jsonl", "heldout_path": tmp_path / "heldout.jsonl"}
    ids = list(instances)
    for path, part in zip(paths.values(), (ids[:7], ids[7:]), strict=True):
        path.write_text(written(instances[id] for id in part))
    given = {name: str(path) for name, path in paths.items()}
    world = suite(config.model_copy(update={**given, "heldout": 3}))
    assert sorted(task.data["instance"] for task in world.heldout_tasks()) == sorted(ids[7:])
