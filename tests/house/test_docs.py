"""What the pages say is so: links lead somewhere, Python parses, commands exist."""

import doctest
import re
from pathlib import Path

import pytest
import typer

from fettle.cli import app
from fettle.losses import LOSSES

ROOT = Path(__file__).parent.parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:\./run )?fettle +(\S+)", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_parses(page):
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            assert compile(code, named(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if "```pycon" in page.read_text(encoding="utf-8")], ids=named)
def test_what_is_typed_into_python_answers_as_the_page_says(page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # pages are written from the project's own folder
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_begin_with_a_verb_that_exists(page):
    assert verbs_used(page.read_text(encoding="utf-8")) - verbs() == set()


def test_every_metric_of_every_loss_is_explained():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {name.replace("_squared", "_std") for row in LOSSES.values() for name in row.metrics}
    explained = {name.rpartition("/")[2] for name in re.findall(r"`([a-z_/<>]+[0-9]?)`", page)}
    assert names - explained == set()


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#a-heading-with-code) [c](https://x.y) [d](gone.md) [e](there.md#gone)")
    assert broken_links(page) == ["gone.md", "there.md#gone"]


def test_an_unknown_verb_is_found():
    assert verbs_used("```bash\nfettle demo --json\n./run fettle trian x.yaml\n```\nfettle prose\n") == {
        "demo",
        "trian",
    }


def broken_links(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [
        f"{target}#{anchor}" if anchor else target
        for target, anchor in LINK.findall(prose)
        if not re.match(r"\w+:", target) and not leads_somewhere(page, target, anchor)
    ]


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    there = page.parent / target if target else page
    return there.exists() and (not anchor or there.suffix != ".md" or anchor in anchors(there))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links spell them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def verbs_used(text: str) -> set[str]:
    used = {verb for _, block in FENCE.findall(text) for verb in COMMAND.findall(block)}
    return {verb for verb in used if not verb.startswith(("-", "["))}


def verbs() -> set[str]:
    return set(typer.main.get_command(app).commands)
