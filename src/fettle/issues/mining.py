"""Problems out of a history: each change that mended something, with the issue that asked for it."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fettle.config.issues import Mining
from fettle.issues.git import Commit, Repository
from fettle.issues.instances import Instance
from fettle.issues.links import Link, is_fix, link_of
from fettle.issues.patches import FilePatch, files_of, joined, languages_of, of_kind, size_of
from fettle.issues.records import Issue, Tracker

BOT = re.compile(r"\[bot\]|dependabot|renovate|pre-commit-ci|github-actions", re.IGNORECASE)
REVERT = re.compile(r"^revert\b", re.IGNORECASE)
TRAILER = re.compile(
    r"^(co-authored-by|signed-off-by|reviewed-by|change-id|reviewed-on):.*$", re.IGNORECASE | re.MULTILINE
)
REFERENCE = re.compile(r"\s*\(#\d+\)|(?<!\w)[#!]\d+\b|https?://\S+")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{3,}")
MASK = "<name>"

DROPPED: Mapping[str, str] = {
    "root": "the first commit, which changes nothing",
    "bot": "made by a program",
    "revert": "takes an earlier change back",
    "unlinked": "neither linked to an issue nor said to mend anything",
    "open": "the issue is not closed as fixed",
    "no source": "no source file of the wanted language is changed",
    "binary": "a file's contents are not shown",
    "too many files": "more source files than max_files",
    "too many lines": "more lines than max_lines",
    "only form": "what the code does stays the same: comments, layout or names of files",
    "no tests": "no test is changed, and tests are asked for",
    "no statement": "nobody says what was wrong",
    "again": "the same change was found before, as a cherry-pick is",
}
"""Why a commit is no problem, and what that means."""


@dataclass(frozen=True, slots=True)
class Mined:
    """What was found, newest first, and how many commits were dropped for what."""

    instances: list[Instance]
    commits: int
    dropped: Counter[str] = field(default_factory=Counter)


class _Drop(Exception):  # noqa: N818  not an error: a commit that is no problem
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def mine(
    repository: Repository, tracker: Tracker, settings: Mining, *, told: Callable[[int], object] = lambda _: None
) -> Mined:
    """The problems of a repository's main line; ``told`` hears how many commits were looked at.

    Raises:
        DataError: git refused, or the tracker is another project's.
    """
    tracker = tracker.of(repository.project)
    mined = Mined([], 0)
    name, root = repository.name, repository.root
    taken: set[str] = set()
    patches: set[str] = set()
    count = 0
    for count, commit in enumerate(repository.main_line(), 1):
        told(count)
        try:
            found = _found(repository, commit, tracker, settings)
            if found.patch_id in patches:
                raise _Drop("again")
        except _Drop as drop:
            mined.dropped[drop.why] += 1
            continue
        patches.add(found.patch_id)
        instance = _instance(commit, found, name=name, root=root, taken=taken)
        taken.add(instance.instance_id)
        mined.instances.append(instance)
        if settings.most and len(mined.instances) == settings.most:
            break
    return Mined(mined.instances, count, mined.dropped)


@dataclass(frozen=True, slots=True)
class _Found:
    """A change that is a problem's solution."""

    base: str
    source: list[FilePatch]
    tests: list[FilePatch]
    link: Link
    statement: str
    patch_id: str

    @property
    def issue(self) -> Issue | None:
        return self.link.issue


def _found(repository: Repository, commit: Commit, tracker: Tracker, settings: Mining) -> _Found:
    link = _wanted(repository, commit, tracker)
    base = commit.parents[0]
    files = files_of(repository.diff(base, commit.sha))
    source = [file for file in of_kind(files, "source") if settings.language in languages_of([file])]
    others = [file for file in of_kind(files, "source") if file not in source]
    tests = of_kind(files, "test")
    if not source:
        raise _Drop("no source")
    if any(file.is_binary for file in (*source, *others, *tests)):
        raise _Drop("binary")
    if len(source) + len(others) > settings.max_files:
        raise _Drop("too many files")
    if size_of([*source, *others]) > settings.max_lines:
        raise _Drop("too many lines")
    if settings.language == "python" and all(_same_code(repository, commit, file) for file in source):
        raise _Drop("only form")
    if settings.need_tests and not tests:
        raise _Drop("no tests")
    kept = [file for file in files if file in source or file in others]
    statement = link.issue.title if link.issue is not None else _synthetic(commit, kept)
    if len(statement.split()) < settings.min_words:
        raise _Drop("no statement")
    if link.issue is not None and link.issue.body.strip():
        statement = f"{link.issue.title}\n\n{link.issue.body.strip()}"
    return _Found(base, kept, tests, link, statement, repository.patch_id(joined(kept)))


def _wanted(repository: Repository, commit: Commit, tracker: Tracker) -> Link:
    """What a commit closes, if it can be a problem's solution at all."""
    if not commit.parents:
        raise _Drop("root")
    if BOT.search(f"{commit.author} {commit.email}"):
        raise _Drop("bot")
    if REVERT.match(commit.subject):
        raise _Drop("revert")
    messages = repository.branch_messages(commit) if len(commit.parents) > 1 else ()
    link = link_of(commit, tracker, messages)
    if link.via == "none" and not is_fix(commit):
        raise _Drop("unlinked")
    if link.issue is not None and not link.issue.is_change and link.issue.outcome != "fixed":
        raise _Drop("open")
    return link


def _same_code(repository: Repository, commit: Commit, file: FilePatch) -> bool:
    """Whether a file of Python is the same program before and after."""
    if file.is_new or file.is_gone:
        return False
    texts = [repository.content(f"{at}:{file.path}") for at in (commit.parents[0], commit.sha)]
    try:
        before, after = (ast.dump(ast.parse(text)) for text in texts)
    except (SyntaxError, ValueError):
        return False
    return before == after


def _synthetic(commit: Commit, source: Iterable[FilePatch]) -> str:
    """A statement out of a commit's message, in which no name stands that only the change itself brings."""
    lines = [line for file in source for line in (*file.added, *file.removed)]
    before = {name for file in source for line in file.removed for name in WORD.findall(line)}
    after = {name for line in lines for name in WORD.findall(line)} - before
    text = REFERENCE.sub("", TRAILER.sub("", commit.message)).strip()
    return WORD.sub(lambda word: MASK if word[0] in after and _is_a_name(word[0]) else word[0], text)


def _is_a_name(word: str) -> bool:
    """Whether a word is an identifier of a program rather than one of a language."""
    return "_" in word or any(letter.isupper() for letter in word[1:]) or any(letter.isdigit() for letter in word)


def _instance(commit: Commit, found: _Found, *, name: str, root: str, taken: Iterable[str]) -> Instance:
    number = found.link.number or commit.sha[:10]
    owner, _, short = name.partition("/")
    id = f"{owner}__{short}-{number}"
    if id in taken:  # an issue that several changes were needed for
        id = f"{owner}__{short}-{number}-{commit.sha[:10]}"
    return Instance(
        instance_id=id,
        repo=name,
        base_commit=found.base,
        patch=joined(found.source),
        test_patch=joined(found.tests),
        problem_statement=found.statement,
        hints_text=_hints(found.issue, commit),
        created_at=(found.issue.created_at if found.issue is not None else commit.at).isoformat(),
        solved_at=commit.at.isoformat(),
        synthetic=found.issue is None,
        link=found.link.via,
        confidence=found.link.confidence,
        languages=languages_of(found.source),
        changed_files=tuple(file.path for file in (*found.source, *found.tests)),
        commit=commit.sha,
        root_commit=root,
        patch_id=found.patch_id,
    )


def _hints(issue: Issue | None, commit: Commit) -> str:
    """What was said before the change; what was edited later may tell of it."""
    if issue is None:
        return ""
    return "\n\n".join(comment.body for comment in issue.comments if comment.updated_at < commit.at)
