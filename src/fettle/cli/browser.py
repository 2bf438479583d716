"""The reader of episodes in a terminal: a list that is searched, and the conversation of the one that is chosen."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Footer, Input, Static

from fettle.cli.view import HEAD, Episode
from fettle.tracking import Search
from fettle.tracking.pages import about, said, visible
from fettle.types import Message

STYLES = {"system": "dim", "user": "bold cyan", "assistant": "bold green", "tool": "bold magenta"}


class Browser(App[None]):
    """Reads episodes."""

    CSS = """
    #list { width: 45%; min-width: 40; }
    #search { height: 3; }
    #search Input { width: 1fr; }
    #counted { height: 1; padding: 0 1; color: $text-muted; }
    DataTable { height: 1fr; }
    #conversation { width: 1fr; border-left: solid $primary; padding: 0 1; }
    """
    BINDINGS = [  # noqa: RUF012  textual reads it so
        ("slash", "search", "Search"),
        ("g", "same_task", "Same task"),
        ("G", "same_group", "Same group"),
        ("escape", "all", "All"),
        ("enter", "read", "Read"),
        ("q", "quit", "Quit"),
    ]

    def __init__(self, episodes: Sequence[Episode], search: Search, *, title: str) -> None:
        super().__init__()
        self.title = title
        self._episodes = episodes
        self._search = search
        self._of_task: str | None = None
        self._of_group: str | None = None
        self._shown: list[Episode] = []

    def compose(self) -> ComposeResult:
        """The list with what is searched for above it, and the conversation beside it."""
        with Horizontal():
            with Vertical(id="list"):
                with Horizontal(id="search"):
                    yield Input(self._search.text, placeholder="text", id="text")
                    yield Input(_written(self._search.min_reward), placeholder="reward from", id="least")
                    yield Input(_written(self._search.max_reward), placeholder="to", id="most")
                yield Static(id="counted", markup=False)
                yield DataTable(cursor_type="row", id="episodes")
            with VerticalScroll(id="conversation"):
                yield Static(id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """The list is filled."""
        table = self._table
        table.add_columns(*HEAD)
        self._fill()
        table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The search is another one; what is no number yet is not looked at."""
        if event.input.id == "text":
            self._search = replace(self._search, text=event.value)
        elif event.input.id == "least":
            self._search = replace(self._search, min_reward=_number(event.value))
        else:
            self._search = replace(self._search, max_reward=_number(event.value))
        self._fill()

    def on_input_submitted(self) -> None:
        """Back to the list."""
        self._table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The conversation of the row is shown."""
        self._show(self._shown[event.cursor_row] if event.cursor_row < len(self._shown) else None)

    def on_data_table_row_selected(self) -> None:
        """The conversation may be scrolled."""
        self.query_one("#conversation").focus()

    def action_search(self) -> None:
        """What is searched for may be typed."""
        self.query_one("#text").focus()

    def action_same_task(self) -> None:
        """Only the episodes of the chosen one's task are listed, at whatever step."""
        if chosen := self._chosen:
            self._of_task, self._of_group = chosen.transcript.title, None
            self._fill()

    def action_same_group(self) -> None:
        """Only the episodes are listed that are compared with the chosen one."""
        if chosen := self._chosen:
            self._of_task, self._of_group = None, chosen.transcript.group
            self._fill()

    def action_all(self) -> None:
        """Everything that is searched for is listed, of whatever task."""
        self._of_task = self._of_group = None
        self._fill()
        self._table.focus()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#episodes", DataTable)

    @property
    def _chosen(self) -> Episode | None:
        row = self._table.cursor_row
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def _fill(self) -> None:
        self._shown = [each for each in self._episodes if self._wanted(each)]
        table = self._table
        table.clear()
        for each in self._shown:
            table.add_row(*map(Text, each.line))
        only = f", of task {self._of_task}" if self._of_task is not None else ""
        only += f", of group {self._of_group}" if self._of_group is not None else ""
        self.query_one("#counted", Static).update(
            visible(f"{len(self._shown)} of {len(self._episodes)} episodes{only}")
        )
        self._show(self._shown[0] if self._shown else None)

    def _wanted(self, episode: Episode) -> bool:
        found = episode.transcript
        of_task, of_group = self._of_task in (None, found.title), self._of_group in (None, found.group)
        return of_task and of_group and self._search.finds(found)

    def _show(self, episode: Episode | None) -> None:
        self.query_one("#said", Static).update(Text() if episode is None else conversation(episode))
        self.query_one("#conversation", VerticalScroll).scroll_home(animate=False)


def conversation(episode: Episode) -> Text:
    """An episode as it is read: what it earned, and what everybody said."""
    text = Text()
    for line in _about(episode):
        text.append(f"{visible(line)}\n", "bold")
    for message in episode.transcript.messages:
        text.append(f"\n{visible(_who(message))}\n", STYLES[message.role])
        text.append(f"{visible(said(message))}\n")
    return text


def _about(episode: Episode) -> Iterator[str]:
    shown = episode.transcript
    yield f"{episode.place}, task {shown.title}"
    parts = " + ".join(f"{name} {value:g}" for name, value in shown.components.items())
    yield f"reward {shown.reward:g}" + (f" = {parts}" if parts else "")
    yield from (line for line in (*about(shown), shown.note) if line)


def _who(message: Message) -> str:
    """Who speaks; of a tool, to which call."""
    return f"{message.role}, to {message.tool_call_id}" if message.tool_call_id else message.role


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
