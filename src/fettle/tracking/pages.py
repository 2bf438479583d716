"""Transcripts as Markdown. What models and data say is shown as it is, and can neither format nor hide anything."""

import re
from collections.abc import Sequence

from fettle.tracking.base import Transcript

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
            parts.append(f"**{message.role}**\n\n{_fenced(message.content)}")
    return "\n".join(parts)


def _earned(transcript: Transcript) -> str:
    components = [f"{span(name)} {value:g}" for name, value in transcript.components.items()]
    lines = [f"Reward **{transcript.reward:g}**" + (f" = {' + '.join(components)}" if components else "")]
    if transcript.note:
        lines.append(span(transcript.note))
    return "\n\n".join(lines) + "\n"


def _fenced(text: str) -> str:
    """A block whose fence is longer than any run of backticks inside, so that nothing inside can end it."""
    shown = _visible(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}text\n{shown}\n{fence}\n"


def span(text: str) -> str:
    """A text on one line, shown as it is."""
    shown = " ".join(_visible(text).split())
    run = _longest_run(shown)
    return f"{'`' * (run + 1)} {shown} {'`' * (run + 1)}" if run else f"`{shown or ' '}`"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _visible(text: str) -> str:
    return text.encode(errors="backslashreplace").decode().translate(VISIBLE)
