"""Transcripts as Markdown. What models and data say is shown as it is, and can neither format nor hide anything."""

import re
from collections.abc import Sequence

from fettle.tracking.base import Transcript
from fettle.types import Message

CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {127: "\u2421"}
UNSEEN = (*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
"""C1 controls, line and paragraph separators, and marks that reverse the order in which text is shown."""
VISIBLE = CONTROLS | {code: f"\\u{code:04x}" for code in UNSEEN}


def page(step: int, transcripts: Sequence[Transcript]) -> str:
    """The samples of one evaluation."""
    parts = [f"# Samples after {step} steps\n"]
    for number, transcript in enumerate(transcripts, start=1):
        parts.append(f"## {number}. {span(transcript.title)}\n")
        parts.append(_earned(transcript))
        for message in transcript.messages:
            parts.append(f"**{message.role}**\n\n{_fenced(said(message))}")
    return "\n".join(parts)


def _earned(transcript: Transcript) -> str:
    components = [f"{span(name)} {value:g}" for name, value in transcript.components.items()]
    lines = [f"Reward **{transcript.reward:g}**" + (f" = {' + '.join(components)}" if components else "")]
    lines += [span(line) for line in (*about(transcript), transcript.note) if line]
    return "\n\n".join(lines) + "\n"


def about(transcript: Transcript) -> list[str]:
    """Whose side it is, and what cut it short; of most episodes there is nothing to say."""
    player = [f"the side of {transcript.player}"] if transcript.player else []
    return [*player, *([f"cut short: {transcript.ending}"] if transcript.ending else [])]


def said(message: Message) -> str:
    """What a message says, with what it calls, call by call."""
    calls = [f"{call.name or 'no call'}({call.arguments})" for call in message.tool_calls]
    return "\n".join([*([message.content] if message.content or not calls else []), *calls])


def _fenced(text: str) -> str:
    """A block whose fence is longer than any run of backticks inside, so that nothing inside can end it."""
    shown = visible(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}text\n{shown}\n{fence}\n"


def span(text: str) -> str:
    """A text on one line, shown as it is."""
    shown = " ".join(visible(text).split())
    run = _longest_run(shown)
    return f"{'`' * (run + 1)} {shown} {'`' * (run + 1)}" if run else f"`{shown or ' '}`"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def visible(text: str) -> str:
    """The text with whatever cannot be seen, or would act on a terminal, spelt out."""
    return text.encode(errors="backslashreplace").decode().translate(VISIBLE)
