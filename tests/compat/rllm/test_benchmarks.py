"""Benchmarks: what tests say decides, and the data set that attempts make."""

import asyncio
import json

import pytest

from fettle.compat.rllm import BenchmarkIntegration, TrajectoryIntegration, get_default_config
from fettle.errors import ConfigError, DataError, NotFoundError
from fettle.issues.examples import SYSTEM, read_examples
from fettle.issues.trajectories import read_trajectories
from tests.issues.attempts import trajectory

WRONG = '<edit path="less.py">\n    return a > b\n=======\n    return a == b\n</edit>'


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """A benchmark of four problems, run as ``mixed``: two solved, one answered wrongly, one in words alone."""
    folder = tmp_path_factory.mktemp("benchmarks")
    path = corpus.file(folder / "problems.jsonl", 0, 1, 2, 3)
    solved = {
        "ada__shop-1": '<edit path="add.py">\n    return a - b\n=======\n    return a + b\n</edit>',
        "ada__shop-2": '<edit path="times.py">\n    return a + b\n=======\n    return b * a\n</edit>',
    }
    replies = {**solved, "ada__shop-3": WRONG, "ada__shop-4": "All tests are passing."}
    made = BenchmarkIntegration(get_default_config(), folder=folder / "all")

    async def ran(**given):
        return await made.run_benchmark(path, corpus.repository, **given)

    result = asyncio.run(ran(benchmark_id="mixed", replies=replies))
    return made, folder / "all", ran, replies, result


async def test_a_reply_is_worth_what_the_hidden_tests_say(run):
    _, folder, ran, replies, result = run
    told = json.loads(result.read_text())
    assert (told["total_issues"], told["successful_issues"], told["failed_issues"]) == (4, 2, 2)
    assert told["metrics"]["success_rate"] == 0.5
    found = {one.issue_id: one.outcome.reward for one in read_trajectories(folder / "trajectories_mixed.json")}
    assert found == {"ada__shop-1": 1.0, "ada__shop-2": 1.0, "ada__shop-3": 0.0, "ada__shop-4": 0.0}
    with pytest.raises(DataError, match="is there already"):
        await ran(benchmark_id="mixed", replies=replies)


async def test_its_data_set_tells_what_each_came_to_and_where_it_is_tested(run, corpus):
    made = run[0]
    result, train, val = await made.convert_existing_benchmark(benchmark_id="mixed", test_size=0.3)
    assert result.is_file()
    lines = [*read_examples(train), *read_examples(val)]
    assert sorted(each.reward for each in lines) == [0.0, 0.0, 1.0, 1.0]
    assert all(each.input_text.startswith(SYSTEM) for each in lines)
    assert {each.metadata.model_extra["repository_folder"] for each in lines} == {str(corpus.repository)}
    again = await made.convert_existing_benchmark(benchmark_id="mixed", test_size=0.3)
    assert [each.metadata.issue_id for each in read_examples(again[1])] == [
        each.metadata.issue_id for each in read_examples(train)
    ]


async def test_a_benchmark_that_is_not_there_says_which_are(run):
    with pytest.raises(NotFoundError, match=r"no benchmark other, .*: mixed"):
        await run[0].convert_existing_benchmark(benchmark_id="other")


@pytest.mark.parametrize("share", [0, 1])
async def test_a_share_that_leaves_nothing_is_one_sentence(run, share):
    with pytest.raises(ConfigError, match=r"convert_existing_benchmark, test_size.* should be .* than") as caught:
        await run[0].convert_existing_benchmark(benchmark_id="mixed", test_size=share)
    assert "\n" not in caught.value.message


async def test_a_reply_to_no_problem_is_refused_with_the_one_that_was_meant(run):
    with pytest.raises(DataError, match=r"a reply is to ada__shop-11, .*; did you mean ada__shop-1\?"):
        await run[2](benchmark_id="other", replies={"ada__shop-11": WRONG})


async def test_without_replies_the_history_s_own_solutions_are_tried(corpus, tmp_path):
    generated = TrajectoryIntegration(get_default_config())
    found, _ = await generated.generate_trajectories(corpus.file(tmp_path / "p.jsonl", 0, 1), corpus.repository)
    assert found.outcome.resolved
    assert found.steps[0].response.startswith('<edit path="add.py">')
    assert found.steps[1].observation == "Every hidden test passes."


async def test_what_was_not_validated_is_refused(corpus, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(corpus.problems[0].model_copy(update={"FAIL_TO_PASS": ()}).model_dump_json() + "\n")
    with pytest.raises(DataError, match="has no FAIL_TO_PASS"):
        await TrajectoryIntegration(get_default_config()).generate_trajectories(path, corpus.repository)


@pytest.mark.parametrize("tested", [0, 1])
async def test_a_side_without_a_line_is_refused_and_nothing_is_written(tmp_path, tested):
    made = [trajectory(at, **({} if at < tested else {"outcome": None})) for at in range(2)]
    (tmp_path / "trajectories_x.json").write_text(json.dumps(made))
    (tmp_path / "result_x.json").write_text("{}")
    benchmarks = BenchmarkIntegration(get_default_config(), folder=tmp_path)
    with pytest.raises(
        DataError, match=r"no line is left to .* \(1 dropped: nothing was tested, .*random_seed"
    ) as caught:
        await benchmarks.convert_existing_benchmark(benchmark_id="x")
    assert "\n" not in caught.value.message
    assert len(list(tmp_path.iterdir())) == 2


def test_where_none_is_wanted_it_is_said_why(corpus):
    with pytest.raises(DataError, match="none of 0 trajectories is left"):
        TrajectoryIntegration(get_default_config()).convert_trajectories([])
