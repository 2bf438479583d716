"""Problems out of a history: what is found, how it is linked, and what is dropped for what."""

from collections import Counter
from pathlib import Path

import pytest

from fettle.config.issues import Mining
from fettle.errors import DataError
from fettle.issues.exports import read_export
from fettle.issues.git import Repository, git
from fettle.issues.mining import DROPPED, Mined, mine
from fettle.issues.patches import files_of
from fettle.issues.records import Tracker
from tests.issues.conftest import MORE_TESTS, RIGHT, TESTS, WRONG, History, issue


def mined(history: History, tracker: Tracker | None = None, **settings) -> Mined:
    return mine(Repository(history.path), tracker or Tracker(), Mining(**settings))


def test_a_change_that_closes_an_issue_is_a_problem_with_its_patch_and_its_tests(history, export):
    tracker = read_export(export([issue(7, "Adding two numbers gives their difference")]))
    found = mined(history, tracker)
    (instance,) = found.instances
    assert instance.instance_id == "local__calculator-7"
    assert instance.problem_statement == "Adding two numbers gives their difference\n\nIt is wrong."
    assert [file.path for file in files_of(instance.patch)] == ["calc.py"]
    assert [file.path for file in files_of(instance.test_patch)] == ["tests/test_calc.py"]
    assert instance.base_commit == history.git("rev-parse", "HEAD~1")
    assert instance.languages == ("python",)
    assert (instance.link, instance.synthetic) == ("keyword", False)
    assert found.commits == 3
    assert found.dropped == {"root": 1, "unlinked": 1}


def test_without_an_issue_the_statement_tells_nothing_that_only_the_change_brings(history):
    history.commit("A start", {"calc.py": RIGHT + "\n\ndef half(a):\n    return a\n"})
    history.commit(
        "Fix half: use floor_division of halves (#12)\n\nCo-authored-by: Bob <b@example.com>",
        {"calc.py": RIGHT + "\n\ndef half(a):\n    floor_division = a // 2\n    return floor_division\n"},
    )
    newest = mined(history).instances[0]
    assert newest.problem_statement == "Fix half: use <name> of halves"
    assert newest.synthetic
    assert newest.link == "change"


@pytest.mark.parametrize(
    ("message", "files", "author", "why"),
    [
        ("Fix the words #7", {"README.md": "Words.\n"}, {}, "no source"),
        ("Fix layout of the sum", {"calc.py": RIGHT.replace("a + b", "a  +  b")}, {}, "only form"),
        ("Fix everything at once", {f"m{n}.py": f"x = {n}\n" for n in range(6)}, {}, "too many files"),
        ("Fix by a table of numbers", {"calc.py": RIGHT + "x = 1\n" * 300}, {}, "too many lines"),
        ("Fix the picture of the sum", {"calc.py": RIGHT + "x = 1\n", "data.bin": b"\0\1\2"}, {}, "binary"),
        ('Revert "Sums are sums"', {"calc.py": WRONG}, {}, "revert"),
        ("Fix versions of everything", {"calc.py": RIGHT + "x = 1\n"}, {"GIT_AUTHOR_NAME": "dependabot[bot]"}, "bot"),
        ("Fix", {"calc.py": RIGHT + "x = 1\n"}, {}, "no statement"),
        ("Another sum", {"calc.py": RIGHT + "x = 1\n"}, {}, "unlinked"),
    ],
)  # fmt: skip
def test_what_is_no_problem_is_dropped_and_counted(history, message, files, author, why):
    before = mined(history)
    history.commit(message, files, **author)
    found = mined(history)
    assert [each.instance_id for each in found.instances] == [each.instance_id for each in before.instances]
    assert found.dropped[why] == before.dropped[why] + 1
    assert set(found.dropped) <= set(DROPPED)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2),
        ({"most": 1}, 1),
        ({"max_lines": 2}, 1),
        ({"min_words": 4}, 1),
        ({"language": "rust"}, 0),
        ({"max_files": 1}, 1),
    ],
)
def test_every_setting_decides(history, settings, count):
    more = {f"m{n}.py": f"x = {n}\ny = {n}\n" for n in range(2)}
    history.commit("Fix more modules", more)
    history.commit("Nothing of it", dict.fromkeys(more))
    assert len(mined(history, **settings).instances) == count


def test_tests_may_be_asked_for(history):
    history.commit("Fix double of nothing", {"calc.py": RIGHT.replace("a * 2", "2 * a + 0")})
    assert mined(history).instances[0].test_patch == ""
    assert mined(history, need_tests=True).dropped["no tests"] == 1


def test_an_issue_that_was_not_fixed_is_none(history, export):
    tracker = read_export(export([issue(7, "Adding two numbers", state_reason="not_planned")]))
    assert mined(history, tracker).dropped["open"] == 1


def test_a_cherry_pick_is_the_same_change(history):
    history.commit("Back to the start", {"calc.py": WRONG, "tests/test_calc.py": TESTS})
    history.commit("Fix sums once more, on the old branch", {"calc.py": RIGHT, "tests/test_calc.py": MORE_TESTS})
    assert mined(history).dropped["again"] == 1


def test_the_trackers_own_word_goes_before_the_message(history, export):
    sha = history.git("rev-parse", "HEAD")
    timeline = [{"event": "closed", "commit_id": sha}]
    given = [issue(7, "Not this one, although named"), issue(8, "This one, says the tracker", timeline=timeline)]
    (instance,) = mined(history, read_export(export(given))).instances
    assert (instance.number, instance.link, instance.confidence) == ("8", "tracker", 1.0)


def test_a_merge_is_one_change_and_closes_what_its_branch_says(history, export):
    history.git("checkout", "-q", "-b", "side")
    history.commit("Doubling is slow", {"calc.py": RIGHT.replace("a * 2", "a + a")})
    history.commit("Say why\n\nfixes: #9", {"README.md": "Quick.\n"})
    history.git("checkout", "-q", "main")
    history.commit("Beside it", {"other.txt": "x"})
    history.git("merge", "-q", "--no-ff", "-m", "Merge branch 'side'", "side")
    tracker = read_export(export([issue(9, "Doubling takes too long")]))
    newest = mined(history, tracker).instances[0]
    assert newest.instance_id == "local__calculator-9"
    assert newest.changed_files == ("calc.py",)


def test_hints_are_what_was_said_before_and_not_edited_since(history, export):
    early = {"body": "early", "user": {"login": "x"}, "created_at": "2026-01-01T09:10:00Z"}
    said = [early, {**early, "body": "edited", "updated_at": "2026-01-02T09:10:00Z"}]
    tracker = read_export(export([issue(7, "Adding two numbers is wrong", comments=said)]))
    assert mined(history, tracker).instances[0].hints_text == "early"


@pytest.mark.parametrize(
    ("remote", "reference", "link"),
    [
        ("git@github.com:acme/calculator.git", "fixes #7", "keyword"),
        ("git@github.com:acme/calculator.git", "fixes Acme/Calculator#7", "keyword"),
        ("git@github.com:acme/calculator.git", "fixes https://github.com/acme/calculator/issues/7", "keyword"),
        ("git@github.com:acme/calculator.git", "fixes other/project#9, closes #7", "keyword"),
        ("git@github.com:acme/calculator.git", "fixes other/project#7", "none"),
        ("git@github.com:acme/calculator.git", "fixes https://github.com/other/project/issues/7", "none"),
        ("git@github.com:acme/calculator.git", "fixes https://codes.example.com/acme/calculator/issues/7", "none"),
        ("https://gitee.com/acme/calculator", "修复 https://gitee.com/acme/calculator/issues/7", "keyword"),
        ("https://gitee.com/acme/calculator", "修复 https://gitee.com/other/project/issues/7", "none"),
        ("work:acme/calculator", "fixes https://github.com/acme/calculator/issues/7", "keyword"),
        ("/srv/acme/calculator", "fixes acme/calculator#7", "none"),
        ("", "fixes acme/calculator#7", "none"),
    ],
)
def test_a_reference_to_another_project_is_none(history, remote, reference, link):
    if remote:
        history.git("remote", "add", "origin", remote)
    history.git("commit", "-q", "--amend", "-m", f"Fix sums of numbers\n\n{reference}")
    (instance,) = mined(history).instances
    assert (instance.link, instance.number == "7") == (link, link == "keyword")


def test_an_export_is_of_the_repositorys_own_project(history, export):
    url = "https://api.github.com/repos/acme/calculator/issues/7"
    tracker = read_export(export([issue(7, "Adding two numbers", url=url)]))
    history.git("commit", "-q", "--amend", "-m", "Sums, fixes other/project#7 and closes acme/calculator#7")
    assert mined(history, tracker).instances[0].link == "keyword"  # a remote is not told, and the export is
    history.git("remote", "add", "origin", "ssh://git@github.com:22/acme/calculator.git")
    assert mined(history, tracker).instances[0].instance_id == "acme__calculator-7"
    history.git("remote", "set-url", "origin", "https://github.com/ada/calculator.git")
    assert mined(history, tracker).instances[0].link == "keyword"  # a fork's, of which the export cannot be
    history.git("remote", "set-url", "origin", "https://github.com/acme/shop.git")
    with pytest.raises(DataError, match="is of acme/calculator, and the repository's origin is acme/shop: give the"):
        mined(history, tracker)


def test_a_folder_of_a_repository_is_refused_and_a_link_to_it_and_a_bare_one_are_not(history, tmp_path):
    with pytest.raises(DataError, match=f"tests is a folder inside the repository {history.path}: give that"):
        Repository(history.path / "tests")
    (tmp_path / "link").symlink_to(history.path)
    history.git("clone", "-q", "--bare", str(history.path), str(tmp_path / "bare.git"))
    head = history.git("rev-parse", "HEAD")
    assert {Repository(tmp_path / each).hash("HEAD") for each in ("link", "bare.git")} == {head}


def test_without_git_that_is_said(history, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="git is not installed, and histories are read with it: install git"):
        Repository(history.path)


def test_what_is_no_repository_or_a_part_of_one_is_refused(history, tmp_path):
    with pytest.raises(DataError, match="is no git repository"):
        Repository(tmp_path)
    git(["init", "-q", "empty"], folder=tmp_path)
    with pytest.raises(DataError, match="empty has no commit: give a repository that has a history"):
        Repository(tmp_path / "empty")
    history.git("clone", "-q", "--depth", "1", f"file://{history.path}", str(tmp_path / "shallow"))
    with pytest.raises(DataError, match="git fetch --unshallow"):
        Repository(tmp_path / "shallow")


OWN = Path(__file__).parents[2]


def test_fettles_own_history_with_issues(export, tmp_path):
    """Of a real history: issues that a tracker says real commits closed, and such as new commits upon it name."""
    if not (OWN / ".git").exists():
        pytest.skip("this copy of Fettle has no history to mine")
    if (OWN / ".git" / "shallow").exists():
        with pytest.raises(DataError, match="has only a part of its history: run git fetch --unshallow in it"):
            Repository(OWN)
        return
    taken = [one.commit for one in mine(Repository(OWN), Tracker(), Mining(most=3)).instances]
    assert taken
    git(["clone", "-q", "--shared", str(OWN), "fettle"], folder=tmp_path)
    folder = tmp_path / "fettle"
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for message in ("Sums are sums (closes #901)", "Sums of sums (#902)", "As #903 asks for", "Nothing of it"):
        with (folder / "src/fettle/errors.py").open("a") as file:
            file.write(f"LAST = {message!r}\n")
        git([*who, "commit", "-q", "-a", "-m", message], folder=folder)
    closed = [
        issue(n, f"What commit {n} is for", timeline=[{"event": "closed", "commit_id": sha}])
        for n, sha in enumerate(taken, 801)
    ]
    named = [issue(n, f"What issue {n} is for") for n in (901, 902, 903, 904)]
    found = mine(Repository(folder), read_export(export([*closed, *named])), Mining())
    linked = {one.number: one for one in found.instances if not one.synthetic}
    assert sorted(linked) == sorted(["901", "902", "903", *(str(801 + n) for n in range(len(taken)))])
    assert [linked[n].link for n in ("901", "902", "903")] == ["keyword", "change", "mention"]
    assert Counter(one.link for one in linked.values())["tracker"] == len(taken)
    assert [linked[str(801 + n)].commit for n in range(len(taken))] == taken
    assert linked["901"].problem_statement == "What issue 901 is for\n\nIt is wrong."
    assert found.commits == len(found.instances) + sum(found.dropped.values())
