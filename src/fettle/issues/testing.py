"""Running a problem's tests in the sandbox, and believing no more of what they say than can be believed."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from fettle.config.issues import Validation
from fettle.issues.patches import kind_of
from fettle.issues.trees import Tree
from fettle.sandbox import Sandbox

Status = Literal["passed", "failed", "skipped"]

RUNNER = """
import json, os, sys
told = json.load(open("fettle-told.json"))
os.remove("fettle-told.json")
os.remove("main.py")
report = os.path.join("/tmp", told["report"])
tests = told.pop("tests")
child = os.fork()
if child == 0:
    said = os.open(report + ".txt", os.O_RDWR | os.O_CREAT)
    for stream in (0, 1, 2):
        os.dup2(said, stream)
    sys.path[:1] = [os.getcwd(), os.path.join(os.getcwd(), "src")]
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import importlib.machinery
    class Tests:
        held = {os.path.join(os.getcwd(), path): text.encode("latin-1") for path, text in tests.items()}
        names = {part for path in tests for part in path.removesuffix(".py").split("/")}
        def find_spec(self, name, path=None, target=None):
            if name.rpartition(".")[2] not in self.names:
                return None
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            if spec is None or spec.origin not in self.held:
                return None
            spec.loader = self
            return spec
        def create_module(self, spec):
            return None
        def exec_module(self, module):
            source = self.held.pop(module.__spec__.origin)
            exec(compile(source, module.__spec__.origin, "exec", dont_inherit=True), module.__dict__)
    sys.meta_path.insert(0, Tests())
    del tests
    import pytest
    words = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", "-o", "addopts=", "--junitxml=" + report]
    words += ["--assert=plain", "--tb=short"]
    words += [word for plugin in told["plugins"] for word in ("-p", plugin)]
    code = pytest.main([*words, *told["files"]])
    sys.stdout.flush()
    os._exit(code)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
texts = [open(p, errors="replace").read() if os.path.exists(p) else "" for p in (report, report + ".txt")]
print(json.dumps({"code": code, "report": texts[0], "said": texts[1][-4000:]}))
"""
"""A copy of this program runs pytest; in the program itself, which tells what is left of that, no problem is loaded.

What tests say is in no file: they are loaded from memory, each once, and their files are empty.
"""

AT_HAND = ("pytest", "_pytest.junitxml", "_pytest.unittest", "_pytest.skipping", "_pytest.pastebin", "pdb", "unittest")
"""What pytest imports as it starts, which takes as long as a small problem's tests: each run finds it imported."""
READ_BEFORE = frozenset(
    {"conftest.py", "pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py"}
)
"""Files that pytest, or Python itself, reads before any test."""
RAN = frozenset({0, 1})
"""Exit codes of pytest after which its report says something: all passed, or some failed."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What tests came to."""

    statuses: Mapping[str, Status]
    """By pytest's own names; empty where nothing ran."""
    trouble: str = ""
    """Why what they say is not believed, or why none ran."""

    @property
    def passed(self) -> frozenset[str]:
        """The names of those that passed."""
        return frozenset(name for name, status in self.statuses.items() if status == "passed")


async def verdicts(box: Sandbox, tree: Tree, files: Sequence[str], settings: Validation) -> Verdicts:
    """What the tests in some files of a tree come to, together with one that is made to fail.

    Where that one does not fail, or the exit code says otherwise than the report, or pytest did not come to its end,
    nothing is believed.

    Raises:
        SandboxError: they could not be run; nothing is said of the tree.
        ConfigError: pytest, or a plugin, cannot be imported in the sandbox.
    """
    canary = f"test_{secrets.token_hex(8)}.py"
    wrong = secrets.randbelow(10**9)
    tests = {path: data for path, data in tree.files.items() if path.endswith(".py") and is_of_tests(path)}
    tests[canary] = f"def test_it():\n    assert {wrong} * 2 == {2 * wrong + 1}\n".encode()
    told = {
        "report": f"{secrets.token_hex(8)}.xml",
        "files": [*files, canary],
        "plugins": settings.plugins,
        "tests": {path: data.decode("latin-1") for path, data in tests.items()},
    }
    given = {**tree.files, **dict.fromkeys(tests, b""), "fettle-told.json": json.dumps(told).encode()}
    given.pop("main.py", None)
    packages = (*AT_HAND, *settings.plugins)
    outcome = await box.run(RUNNER, files=given, seconds=settings.seconds, packages=packages)
    if outcome.ending != "exited" or outcome.code != 0:
        why = {"timeout": f"the tests took longer than {settings.seconds:g} s"}.get(
            outcome.ending, f"ended by {outcome.ending}"
        )
        return Verdicts({}, why)
    try:
        said = json.loads(outcome.stdout)
    except ValueError:
        return Verdicts({}, "more was said than what the tests came to: they were tampered with")
    return _believed(said, f"{canary}::test_it")


def _believed(said: Mapping[str, object], canary: str) -> Verdicts:
    statuses = _statuses(str(said["report"]))
    if said["code"] not in RAN or not statuses:
        words = [line[1:].strip() for line in str(said["said"]).splitlines() if line.startswith("E  ")]
        return Verdicts({}, words[-1] if words else f"pytest ended with {said['code']}")
    if statuses.pop(canary, None) != "failed":
        return Verdicts({}, "a test that must fail did not: the tests were tampered with")
    if said["code"] != 1:
        return Verdicts({}, "the exit code says that all passed, and one must fail: the tests were tampered with")
    return Verdicts(statuses)


def _statuses(report: str) -> dict[str, Status]:
    """What a report in JUnit's format says; a test that is told of twice passed only if it passed both times."""
    try:
        root = ElementTree.fromstring(report)
    except ElementTree.ParseError:
        return {}
    found: dict[str, Status] = {}
    for case in root.iter("testcase"):
        name = _name(case.attrib)
        status = _status(case)
        found[name] = status if found.get(name, status) == status else "failed"
    return found


def _name(case: Mapping[str, str]) -> str:
    """``tests/test_a.py::TestB::test_c``."""
    file = case.get("file", "")
    module = file.removesuffix(".py").replace("/", ".")
    classes = case.get("classname", "").removeprefix(module).strip(".")
    return "::".join(filter(None, (file, *classes.split("."), case.get("name", ""))))


def _status(case: ElementTree.Element) -> Status:
    """As SWE-bench counts: what was expected to fail, and did, has passed."""
    kinds = {child.tag: child.get("type", "") for child in case}
    if "failure" in kinds or "error" in kinds:
        return "failed"
    return "skipped" if "skipped" in kinds and "xfail" not in kinds["skipped"] else "passed"


def is_of_tests(path: str) -> bool:
    """Whether a file is one of the tests, or what they are helped by."""
    return kind_of(path) == "test" or decides_tests(path)


def decides_tests(path: str) -> bool:
    """Whether a file decides what tests say: their own, and what pytest reads before them."""
    name = path.rpartition("/")[2]
    return name in READ_BEFORE or bool(files_with_tests([path]))


def files_with_tests(paths: Iterable[str]) -> list[str]:
    """Those in which pytest looks for tests."""
    names = {path: path.rpartition("/")[2] for path in paths}
    return sorted(p for p, name in names.items() if name.endswith(".py") and _holds_tests(name.removesuffix(".py")))


def _holds_tests(stem: str) -> bool:
    return stem.startswith("test_") or stem.endswith("_test")
