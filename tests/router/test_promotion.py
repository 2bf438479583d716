"""No policy comes into use without evidence that is its own, and what was done can be told and undone."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fettle.config.routing import PromotionGate
from fettle.errors import BusyError, CheckpointError, RefusedError
from fettle.router.audit import append, entry, read_audit
from fettle.router.evaluation import evaluate, write_evaluation
from fettle.router.files import arrays_as_bytes
from fettle.router.policy import load_policy
from fettle.router.promotion import promote, rollback, status, verdict
from fettle.router.registry import IN_USE, folder_of, in_use, locked, pointer

NAN = float("nan")
GATE = PromotionGate(seeds=4, episodes=128)


@pytest.fixture
def copied(runs, tmp_path):
    """``copied("best")``: a run's folder that may be harmed."""

    def copy(name):
        return Path(shutil.copytree(runs / name, tmp_path / f"copy-of-{name}"))

    return copy


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "registry"


def events(registry):
    return [each["event"] for each in read_audit(registry).entries]


def promoted(run, registry):
    return promote(run, registry, who="me", why="a test", gate=GATE)


def test_the_first_must_beat_the_best_fixed_mode_and_the_next_what_is_in_use(runs, registry):
    first = promoted(runs / "better", registry)
    assert (first.version, first.before) == (1, 0)
    assert first.comparison.against.endswith(" alone")
    second = promoted(runs / "best", registry)
    assert (second.version, second.before, second.comparison.against) == (2, 1, "version 1")
    assert second.comparison.low > 0
    version, policy = in_use(registry)
    assert version == 2
    np.testing.assert_array_equal(policy.arrays["policy_w"], load_policy(runs / "best").arrays["policy_w"])
    assert events(registry) == ["promoted", "promoted"]
    entry_ = read_audit(registry).entries[-1]
    assert (entry_["who"], entry_["why"], entry_["simulated"], entry_["version"]) == ("me", "a test", True, 2)


def test_one_that_does_worse_is_refused_with_its_numbers_and_the_log_says_so(runs, registry):
    promoted(runs / "best", registry)
    with pytest.raises(RefusedError, match=r"earns -0\.\d+ a decision over version 1, with a 95 % interval of") as told:
        promoted(runs / "better", registry)
    assert in_use(registry)[0] == 1
    last = read_audit(registry).entries[-1]
    assert (last["event"], last["reason"], last["who"]) == ("refused", told.value.message, "me")


def test_the_very_policy_in_use_is_not_promoted_again(runs, registry):
    promoted(runs / "best", registry)
    with pytest.raises(RefusedError, match="is this very policy"):
        promoted(runs / "best", registry)


def test_a_policy_that_is_no_better_than_a_fixed_mode_is_refused_where_nothing_is_in_use(runs, registry):
    with pytest.raises(RefusedError, match=r"over collaborate alone|over consensus alone"):
        promoted(runs / "first", registry)
    assert in_use(registry) is None


def changed(folder, name, change):
    tree = json.loads((folder / name).read_text())
    change(tree)
    (folder / name).write_text(json.dumps(tree))


def another_policy(folder):
    """The run trained on: its policy is whole, and its evaluation is of the one before."""
    policy = load_policy(folder)
    contents = arrays_as_bytes({**policy.arrays, "policy_b": policy.arrays["policy_b"] + np.float32(0.5)})
    (folder / "policy_state.npz").write_bytes(contents)
    sha256 = hashlib.sha256(contents).hexdigest()
    changed(folder, "metadata.json", lambda tree: tree.update(policy_sha256=sha256))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda f: (f / "evaluation.json").unlink(), "and so no evidence: evaluate it"),
        (another_policy, "is not of the policy beside it"),
        (lambda f: changed(f, "evaluation.json", lambda t: t.update(schema_version=9)), "not an evaluation of schema"),
        (lambda f: changed(f, "evaluation.json", lambda t: t.update(simulated=False)), "has no simulated that can"),
        (lambda f: changed(f, "evaluation.json", lambda t: t.pop("of")), "has no of that can be used"),
        (lambda f: changed(f, "evaluation.json", lambda t: t.update(policy={})), "has no policy.mean that can be used"),
        (lambda f: changed(f, "evaluation.json", lambda t: t["policy"].update(mean=NAN)), "has no policy.mean that"),
        (lambda f: changed(f, "evaluation.json", lambda t: t["policy"].update(low=NAN)), "has no policy.low that can"),
        (lambda f: changed(f, "evaluation.json", lambda t: t["policy"].update(mean=0.9)), "measured here again it is"),
        (lambda f: changed(f, "evaluation.json", lambda t: t["policy"].update(low=0.9)), "measured here again it is"),
        (lambda f: (f / "evaluation.json").write_text("{"), "not an evaluation of schema"),
        (lambda f: (f / "evaluation.json").write_text("[" * 100_000), "not an evaluation of schema"),
        (lambda f: (f / "metadata.json").write_text("[" * 100_000), "cannot be read as JSON"),
        (lambda f: (f / "policy_state.npz").write_bytes(b"PK"), "cannot be read as arrays"),
        (
            lambda f: changed(f, "metadata.json", lambda t: t["reward_weights"].update(latency=0.0)),
            "was made in another simulator",
        ),
    ],
)
def test_evidence_that_is_none_is_refused_in_one_sentence(copied, registry, harm, sentence):
    folder = copied("best")
    harm(folder)
    with pytest.raises(RefusedError, match=sentence) as told:
        promoted(folder, registry)
    assert "\n" not in told.value.message
    assert in_use(registry) is None
    assert events(registry) == ["refused"]


def test_the_default_gate_asks_for_ten_seeds(runs, registry):
    with pytest.raises(RefusedError, match="is of 4 held-out seeds with 128 episodes each, and 10 with 256 are asked"):
        promote(runs / "best", registry, who="me")


@pytest.mark.parametrize(("seeds", "episodes"), [(3, 128), (5, 128), (4, 127), (4, 256)])
def test_whoever_brings_a_policy_does_not_choose_on_what_it_is_compared(copied, registry, seeds, episodes):
    folder = copied("best")
    write_evaluation(evaluate(load_policy(folder), seeds=seeds, episodes=episodes), folder)
    with pytest.raises(RefusedError, match=f"of {seeds} held-out seeds with {episodes} episodes each, and 4 with 128"):
        promoted(folder, registry)


def test_who_goes_back_for_what_they_saw_of_a_version_goes_back_from_no_other(runs, registry):
    promoted(runs / "better", registry)
    promoted(runs / "best", registry)
    with pytest.raises(RefusedError, match="version 1 is not in use any more, but 2: look at that one first"):
        rollback(registry, who="me", expected=1)
    assert in_use(registry)[0] == 2
    assert rollback(registry, who="me", expected=2) == 1


def test_a_policy_of_another_world_is_not_compared(runs, copied, registry):
    promoted(runs / "better", registry)
    folder = copied("best")
    changed(folder, "metadata.json", lambda tree: tree["reward_weights"].update(latency=0.0))
    write_evaluation(evaluate(load_policy(folder), seeds=4, episodes=128), folder)
    with pytest.raises(RefusedError, match="was trained with another reward_weights"):
        promoted(folder, registry)


def test_a_verdict_writes_nothing(runs, registry):
    found = verdict(runs / "best", registry, gate=GATE)
    assert found.refused is None
    assert found.comparison.low > 0
    assert "over" in verdict(runs / "first", registry, gate=GATE).refused
    assert not registry.exists()


def test_going_back_goes_through_what_was_in_use_before_down_to_nothing(runs, registry):
    promoted(runs / "better", registry)
    promoted(runs / "best", registry)
    assert rollback(registry, who="me") == 1
    assert rollback(registry, who="me") == 0
    assert in_use(registry) is None
    with pytest.raises(RefusedError, match="has nothing in use already"):
        rollback(registry, who="me")
    assert rollback(registry, who="me", to=2) == 2
    assert rollback(registry, who="me", to=0) == 0
    with pytest.raises(RefusedError, match="has no version 7: there is 1, 2"):
        rollback(registry, who="me", to=7)
    assert events(registry).count("rolled_back") == 4
    assert events(registry).count("refused") == 2


def test_a_registry_that_is_not_there_is_not_made_by_going_back(registry):
    with pytest.raises(RefusedError, match=r"there is no .*registry: name a folder"):
        rollback(registry, who="me")
    assert not registry.exists()


def test_what_was_altered_after_its_promotion_is_not_used_and_can_be_left(runs, registry):
    promoted(runs / "better", registry)
    promoted(runs / "best", registry)
    harmed = folder_of(registry, 2) / "policy_state.npz"
    assert not os.access(harmed, os.W_OK) or os.geteuid() == 0
    harmed.chmod(0o644)
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="is not the file that was promoted"):
        in_use(registry)
    seen = status(registry)
    assert "is not the file that was promoted" in seen.damage
    assert [bool(each.damage) for each in seen.versions] == [False, True]
    with pytest.raises(RefusedError, match="is not the file that was promoted"):
        promoted(runs / "best", registry)
    assert rollback(registry, who="me") == 1
    with pytest.raises(RefusedError, match="is not the file that was promoted"):
        rollback(registry, who="me", to=2)


def test_a_pointer_that_is_damaged_is_mended_by_a_version_by_its_number(runs, registry):
    promoted(runs / "best", registry)
    (registry / IN_USE).write_text("{}")
    assert "is damaged" in status(registry).damage
    with pytest.raises(RefusedError, match="roll back to a version by its number"):
        rollback(registry, who="me")
    assert rollback(registry, who="me", to=1) == 1
    assert status(registry).damage is None


def test_while_one_changes_the_registry_another_is_told(runs, registry):
    with locked(registry), pytest.raises(BusyError, match="is being changed by another promotion"):
        promoted(runs / "best", registry)
    assert events(registry) == ["refused"]
    assert promoted(runs / "best", registry).version == 1


def test_of_two_promotions_at_once_one_wins(runs, registry):
    def attempt(_):
        try:
            return promoted(runs / "best", registry).version
        except (BusyError, RefusedError) as error:
            return type(error)

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(attempt, range(2)))
    assert outcomes.count(1) == 1
    assert in_use(registry)[0] == 1
    assert sorted(events(registry)) == ["promoted", "refused"]


def _promote_until(run, registry, step):
    """Killed as it touches the registry for the ``step``-th time."""
    left = step

    def hook(event, arguments):
        nonlocal left
        if event in ("open", "os.mkdir", "os.rename", "os.chmod") and str(registry) in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    promoted(run, registry)


def test_killed_anywhere_it_leaves_the_old_or_the_new_and_the_log_comes_to_say_which(runs, registry, tmp_path):
    promoted(runs / "better", registry)
    left = {}
    for step in range(200):
        here = Path(shutil.copytree(registry, tmp_path / f"killed-{step}"))
        child = multiprocessing.get_context("fork").Process(target=_promote_until, args=(runs / "best", here, step))
        child.start()
        child.join()
        left[step] = in_use(here)[0]
        rollback(here, who="me", to=0)
        told = [each["version"] for each in read_audit(here).entries if each["event"] == "promoted"]
        assert told == list(range(1, left[step] + 1))
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert list(left.values()) == sorted(left.values())  # the old up to some step, the new from there on
    assert list(left.values()).count(1) > 10
    assert list(left.values()).count(2) > 2


def test_a_line_of_the_log_that_was_changed_or_taken_out_is_found(tmp_path):
    append(tmp_path, *(entry("promoted", who="me", why="", version=number) for number in range(4)))
    append(tmp_path, entry("promoted", who="me", why="", version=4))
    lines = (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 5
    assert read_audit(tmp_path).broken == ()
    (tmp_path / "audit.jsonl").write_text("".join([lines[0].replace("me", "you"), *lines[1:]]))
    assert read_audit(tmp_path).broken == (2,)
    (tmp_path / "audit.jsonl").write_text("".join([*lines[:2], *lines[3:]]))
    assert read_audit(tmp_path).broken == (3,)


def test_a_line_that_was_cut_short_stays_and_the_next_is_a_line_of_its_own(tmp_path):
    append(tmp_path, entry("promoted", who="me", why="", version=1))
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('{"event": "prom')
    append(tmp_path, entry("promoted", who="me", why="", version=2))
    found = read_audit(tmp_path)
    assert ([each["version"] for each in found.entries], found.broken) == ([1, 2], (2,))


def test_many_write_the_log_at_once_and_every_line_follows_the_one_before(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_twenty, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = read_audit(tmp_path)
    assert (len(found.entries), found.broken) == (60, ())


def _write_twenty(folder):
    for number in range(20):
        append(folder, entry("promoted", who="me", why="", version=number))


def test_what_never_was_is_told_as_nothing(registry):
    seen = status(registry)
    assert (seen.in_use, seen.damage, seen.versions, seen.audit.entries) == (None, None, (), ())
    assert pointer(registry) is None
