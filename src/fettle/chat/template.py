"""A chat template as a loop needs it: prompts, what follows a reply, and what to train on.

A template writes whole conversations, and an episode grows one piece at a time. So the pieces are cut out of fixed
conversations: what stands around an assistant's text there stands around it everywhere. What was sampled is kept
token for token, and earlier turns are never written anew.
"""

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from fettle.chat.tool_calls import ToolFormat, takes_tools, tool_format
from fettle.chat.written import written
from fettle.errors import DataError, ModelError
from fettle.types import Message, ToolCall, ToolSpec

QUESTION = Message("user", "A question")
MARK = "Marked"
LONGEST_CHARACTER = 4
"""Tokens: a character has no more bytes than that, and a token with text at least one."""

DECODED = 2**16
"""Short runs of tokens whose text is remembered."""
PROMPTED = 2**10
"""Prompts whose tokens are remembered: the members of a group share theirs, and every evaluation asks the same."""
REPLY = Message("assistant", MARK)
BREAK = "\ufdd0"
"""Never a character of any text: tokens do not reach across it, and it is none itself."""
HEARD = frozenset({"user", "tool"})
"""Who speaks from outside: a control token that they spell out is text, and never the token."""


class _Reply(NamedTuple):
    """One thing that the assistant says, and the tokens that come before it."""

    place: int
    heard: Sequence[Message]
    before: list[int]
    said: list[int]


class Template:
    """Messages to tokens and back.

    Raises:
        ModelError: the chat template cannot write a question and a reply.
    """

    end_token_ids: frozenset[int]
    """Tokens that end what an assistant says."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._decoded = functools.lru_cache(maxsize=DECODED)(self._decode)
        self._prompted = functools.lru_cache(maxsize=PROMPTED)(self._asked)
        self._name = tokenizer.name_or_path or "this model"
        try:
            self._opening = self._text([QUESTION], generation_prompt=True)
            head, self._closing = self._around_mark([])
        except DataError as error:
            raise ModelError(
                f"the chat template of {self._name} cannot write a question and a reply ({error})"
            ) from error
        closing = self._tokens_after(head, self._closing)
        added = tokenizer.added_tokens_decoder
        ends = [place for place, token in enumerate(closing) if token in added]
        through = ends[0] + 1 if ends else 0
        self._end, self._after_end = closing[:through], closing[through:]
        self.end_token_ids = frozenset(self._end[-1:]) | frozenset({tokenizer.eos_token_id} - {None})
        control = {token.content for place, token in added.items() if token.special or place in self.end_token_ids}
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)")

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """The conversation so far, up to where the assistant speaks, and the tools that it may call.

        Raises:
            DataError: there are no messages, or the template refuses them.
            ModelError: the template takes no tools, or writes calls of them in a form that is not read here.
        """
        return list(self._prompted(tuple(messages), tuple(tools)))

    def continuation(self, sampled: Sequence[int], new: Sequence[Message]) -> list[int]:
        """What to append to sampled tokens: the end of their turn if they lack it, ``new``, and the next prompt.

        Raises:
            DataError: the template refuses ``new`` after a reply.
            ModelError: the template writes the end of a reply differently once the conversation goes on.
        """
        following = self._following(self._inert(new), generation_prompt=True)
        return following[len(self._end) :] if self._ended(sampled) else following

    def reply(self, sampled: Sequence[int], tools: Sequence[ToolSpec] = (), *, turn: int = 0) -> Message:
        """What sampled tokens say, without the token that ended them and without other special tokens.

        Where there are ``tools`` it calls them, in the form in which the template writes calls: ``call_<turn>_<n>``.
        What was begun as a call and cannot be read as one is a call of no name.
        """
        if not tools:
            return Message("assistant", self._decode(self._said(sampled)))
        heard = [token for token in self._said(sampled) if token not in self._silent]
        text: str = self._tokenizer.decode(heard, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        said, calls = self._form.attempts(text, f"call_{turn}")
        return Message("assistant", said, tuple(calls))

    def pieces(self, sampled: Sequence[int]) -> list[str]:
        """The text of each sampled token; together they are what the reply says.

        A token that ends it or is special has none, and where a character is made of several, the last one has it. What
        is no character may be missing at the end.
        """
        said = self._said(sampled)
        found = [""] * len(sampled)
        start = read = 0  # of the last token that had text, and of the first that has not been read
        for end in range(1, len(said) + 1):
            # Beside what stands before it, as some decoders strip a space from the first token of a text.
            before, text = self._decoded(said[start:read]), self._decoded(said[start:end])
            unfinished = text.endswith("\N{REPLACEMENT CHARACTER}") and end - read < LONGEST_CHARACTER
            if text != before and not unfinished:
                found[end - 1] = text[len(before) :]
                start, read = read, end
        return found

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()
    ) -> tuple[list[int], list[float]]:
        """Tokens and loss mask [T]: 1 on what the assistant says and on the token that ends it, 0 elsewhere.

        The sequence is the one that an episode would have grown, turn by turn.

        Raises:
            DataError: the assistant does not have the last word, or has the first; or the template does not
                write what it says as it stands.
        """
        _check_turns(messages)
        tokens: list[int] = []
        mask: list[float] = []
        for reply in self._replies(self._inert(messages), tools):
            tokens += [*reply.before, *reply.said]
            mask += [0.0] * len(reply.before) + [1.0] * len(reply.said)
        return tokens + self._after_end, mask + [0.0] * len(self._after_end)

    def owners(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> tuple[list[int], list[int | None]]:
        """Tokens, and for each the place of the message that it says or ends [T]; None where the template speaks.

        The sequence is that of :meth:`conversation`, and after the last reply more may be heard. Of what stands before
        the first reply nothing is told apart: it has no owner.

        Raises:
            DataError: the assistant says nothing, or has the first word; or the template does not write a message as
                it stands.
        """
        messages = self._inert(messages)
        last = max((place for place, message in enumerate(messages) if message.role == "assistant"), default=-1)
        _check_turns(messages[: last + 1])
        tokens: list[int] = []
        owners: list[int | None] = []
        for reply in self._replies(messages[: last + 1], tools):
            first = reply.place - len(reply.heard)
            owners += self._hearing(reply.heard, first, generation_prompt=True) if first else [None] * len(reply.before)
            owners += [reply.place] * len(reply.said)
            tokens += [*reply.before, *reply.said]
        if not (rest := messages[last + 1 :]):
            return tokens + self._after_end, owners + [None] * len(self._after_end)
        after = self._following(rest, generation_prompt=False)[len(self._end) :]
        return tokens + after, owners + self._hearing(rest, last + 1, generation_prompt=False)

    def _replies(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Iterator[_Reply]:
        said: list[int] = []
        heard: list[Message] = []
        for place, message in enumerate(messages):
            if message.role != "assistant":
                heard.append(message)
                continue
            before = self.continuation(said, heard) if place > len(heard) else self.prompt(heard, tools)
            said = [*self._spoken(messages, place), *self._end]
            yield _Reply(place, heard, before, said)
            heard = []

    def _hearing(self, heard: Sequence[Message], first: int, *, generation_prompt: bool) -> list[int | None]:
        """The owner of each token after the end of one reply and before the next; ``first`` is that of ``heard[0]``."""
        head, tail = self._around_mark(heard, generation_prompt=generation_prompt)
        marked = [replace(message, content=MARK) for message in heard]
        _, frame = self._around_mark(marked, generation_prompt=generation_prompt)
        tokens = self._tokens_after(head, tail)
        owners: list[int | None] = [None] * len(tokens)
        for place, span in enumerate(self._spans(heard, first, tail, frame.split(MARK)), start=first):
            begin, end = (_alike(self._tokens_after(head, tail[:at]), tokens) for at in span)
            if tokens[end : end + len(self._end)] == self._end:
                end += len(self._end)
            owners[begin:end] = [place] * (end - begin)
        return owners[len(self._end) :]

    def _said(self, sampled: Sequence[int]) -> tuple[int, ...]:
        """Without the token that ended them."""
        return tuple(sampled[:-1] if sampled and sampled[-1] in self.end_token_ids else sampled)

    def _decode(self, tokens: tuple[int, ...]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _spans(
        self, heard: Sequence[Message], first: int, tail: str, around: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """From where to where each text stands in ``tail``, whose other pieces are ``around`` the texts."""
        if len(around) != len(heard) + 1:
            raise self._rewritten(first)
        start = len(around[0])
        for place, (message, following) in enumerate(zip(heard, around[1:], strict=True), start=first):
            forms = (message.content, message.content.strip())
            length = next((len(text) for text in forms if tail.startswith(text + following, start)), None)
            if length is None:
                raise self._rewritten(place)
            yield start, start + length
            start += length + len(following)

    def _rewritten(self, place: int) -> DataError:
        return DataError(
            f"message {place + 1} cannot be trained on: the chat template of {self._name} does not write it as it "
            "stands: reword it, or train on what the assistant says alone"
        )

    def _ended(self, sampled: Sequence[int]) -> bool:
        return bool(sampled) and bool(self._end) and sampled[-1] == self._end[-1]

    def _following(self, new: Sequence[Message], *, generation_prompt: bool) -> list[int]:
        """What comes after the text of a reply: the end of its turn, then ``new``."""
        head, tail = self._around_mark(new, generation_prompt=generation_prompt)
        if not tail.startswith(self._closing):
            raise ModelError(
                f"the chat template of {self._name} ends a reply with {self._closing!r}, but with {tail[:40]!r} once "
                "the conversation goes on: give the model a chat_template.jinja whose earlier turns never change"
            )
        return self._tokens_after(head, tail)

    def _spoken(self, messages: Sequence[Message], place: int) -> list[int]:
        """The text of one assistant turn, in the form that comes right after the generation prompt.

        Templates that drop the reasoning of earlier turns keep it in the last one, so the last may take that form.
        """
        message = messages[place]
        after = [Message("tool", "A result", tool_call_id=call.id) for call in message.tool_calls]
        forms = [(after, self._around_mark(after)[1])] if after else [([QUESTION], self._ending)]
        for following, ending in forms + ([([], self._closing)] if place == len(messages) - 1 else []):
            said = _between(self._opening, self._text([QUESTION, message, *following]), ending)
            if said is not None and self._says(said, message):
                return self._tokens_after(self._opening, said)
        raise DataError(
            f"message {place + 1} cannot be trained on: the chat template of {self._name} does not write it whole "
            "after its generation prompt (some drop reasoning from earlier messages, and some demand it in the last): "
            "reword it, or end the conversation with it"
        )

    def _says(self, said: str, message: Message) -> bool:
        """Whether ``said`` is the message but for white space, the generation prompt perhaps holding its beginning."""
        calls: list[ToolCall] = []
        if message.tool_calls:
            said, calls = self._form.attempts(said, "")
        heard, wanted, opening = ("".join(text.split()) for text in (said, message.content, self._opening))
        called = [(call.name, json.loads(call.arguments)) for call in calls if call.name]
        return (
            wanted.endswith(heard)
            and (opening + heard).endswith(wanted)
            and called == [(call.name, json.loads(call.arguments)) for call in message.tool_calls]
        )

    @functools.cached_property
    def _form(self) -> ToolFormat:
        form = tool_format(self._tokenizer) if takes_tools(self._tokenizer) else None
        if form is None:
            raise ModelError(
                f"the chat template of {self._name} takes no tools, or writes calls of them in a form that is not read "
                "here: use a model whose template writes each as a JSON object, or leave out what offers tools"
            )
        return form

    @functools.cached_property
    def _silent(self) -> frozenset[int]:
        """Tokens that are no text, where calls are read: the marks around those are, even if they are special."""
        marks = self._tokenizer.convert_tokens_to_ids([mark for mark in (self._form.mark, self._form.end) if mark])
        return frozenset(self._tokenizer.all_special_ids) - frozenset(marks)

    @functools.cached_property
    def _ending(self) -> str:
        """What stands after a reply that a question follows."""
        return self._around_mark([QUESTION])[1]

    def _around_mark(self, new: Sequence[Message], *, generation_prompt: bool = False) -> tuple[str, str]:
        """What the template writes up to the end of the marked reply, and from there."""
        if (heard := [message for message in new if message.role == "tool"]) and (
            around := self._around_calls(heard, new, generation_prompt=generation_prompt)
        ):
            return around
        text = self._text([QUESTION, REPLY, *new], generation_prompt=generation_prompt)
        head, mark, tail = text.partition(MARK)
        if not mark:
            raise ModelError(
                f"the chat template of {self._name} leaves out what the assistant said: "
                "give the model a chat_template.jinja that keeps replies"
            )
        return head + mark, tail

    def _around_calls(
        self, heard: Sequence[Message], new: Sequence[Message], *, generation_prompt: bool
    ) -> tuple[str, str] | None:
        """As above, the reply being calls, without which some templates write no message of a tool.

        None where the template does not write calls, or ends them otherwise than what is said.
        """
        ids = [message.tool_call_id or f"call_0_{place}" for place, message in enumerate(heard)]
        arguments = ["{}"] * (len(ids) - 1) + [json.dumps({"text": MARK})]
        calling = Message("assistant", "", tuple(map(ToolCall, ids, ["tool"] * len(ids), arguments)))
        _, mark, last = self._text([QUESTION, calling]).partition(MARK)
        if not mark or not last.endswith(self._closing):
            return None
        rest = last.removesuffix(self._closing)
        begun, _, tail = self._text([QUESTION, calling, *new], generation_prompt=generation_prompt).partition(MARK)
        return (begun + MARK + rest, tail.removeprefix(rest)) if tail.startswith(rest) else None

    def _asked(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        return self._encoded(self._text(self._inert(messages), self._offered(tools), generation_prompt=True))

    def _offered(self, tools: Sequence[ToolSpec]) -> list[ToolSpec]:
        """The tools, described in text alone; see :meth:`_inert`."""
        if tools and self._form:
            return [
                replace(tool, description=self._as_text(tool.description), schema=self._as_text(tool.schema))
                for tool in tools
            ]
        return []

    def _as_text(self, text: str) -> str:
        return self._control.sub(_broken, text.replace(BREAK, ""))

    def _inert(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, in which control tokens that somebody spelt out are broken into text."""
        return [
            replace(message, content=self._as_text(message.content)) if message.role in HEARD else message
            for message in messages
        ]

    def _text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, generation_prompt: bool = False
    ) -> str:
        if not messages:
            raise DataError("there is no message to answer: start the conversation with one")
        return written(self._tokenizer, messages, tools, generation_prompt=generation_prompt)

    def _tokens_after(self, head: str, text: str) -> list[int]:
        """The tokens of ``text`` where it stands after ``head``, whose own tokens stay as they are."""
        before, whole = self._encoded(head), self._encoded(head + text)
        # Where the two would merge into one token, the head has already been sampled or prompted without it.
        return whole[len(before) :] if whole[: len(before)] == before else self._encoded(text)

    def _encoded(self, text: str) -> list[int]:
        tokens: list[int] = []
        for part in text.split(BREAK):
            tokens += self._tokenizer.encode(part, add_special_tokens=False, verbose=False)
        return tokens


def _broken(control: re.Match[str]) -> str:
    return control[0][:1] + BREAK + control[0][1:]


def _check_turns(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role != "assistant":
        raise DataError("a conversation to learn from must end with what the assistant says")
    if messages[0].role == "assistant":
        raise DataError("the assistant speaks first, and there is no prompt to answer: put a user message before it")


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _between(opening: str, text: str, ending: str) -> str | None:
    """What ``text`` has between the two; None where they are not its beginning and end."""
    room = len(text) - len(opening) - len(ending)
    if room < 0 or not (text.startswith(opening) and text.endswith(ending)):
        return None
    return text[len(opening) : len(opening) + room]
