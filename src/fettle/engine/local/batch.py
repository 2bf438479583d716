"""The rows that are running: what each has drawn, and when it is finished."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fettle.engine.local.drawing import Drawn, Settings, Top, draw, uniforms
from fettle.engine.local.roster import Roster
from fettle.engine.local.stopping import Pieces, StopStrings
from fettle.types import Completion


@dataclass(slots=True)
class Ledger:
    """Everything that was drawn, in the order of drawing, until it is sorted into completions."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    logprobs: list[Tensor] = field(default_factory=list)
    untempered: list[Tensor] = field(default_factory=list)
    top: list[tuple[NDArray[np.int64], Top]] = field(default_factory=list)

    def add(self, rows: NDArray[np.int64], tokens: NDArray[np.int64], drawn: Drawn, settings: Settings) -> None:
        """One token for each of ``rows``."""
        self.rows.append(rows)
        self.tokens.append(tokens)
        self.logprobs.append(drawn.logprobs)
        if drawn.untempered is not None:
            self.untempered.append(drawn.untempered)
        if drawn.top is not None and settings.top is not None:
            self.top.append((rows[settings.top.rows], drawn.top))

    def likeliest(self, size: int) -> list[list[list[tuple[int, float]]]]:
        """By row of ``size`` rows: at each token the likeliest ones, as many as the greediest row asked for."""
        found: list[list[list[tuple[int, float]]]] = [[] for _ in range(size)]
        for rows, top in self.top:
            for row, tokens, logprobs in zip(rows.tolist(), top.tokens.tolist(), top.logprobs.tolist(), strict=True):
                found[row].append(list(zip(tokens, logprobs, strict=True)))
        return found


class Batch:
    """B rows of a roster; arrays have one entry a row."""

    def __init__(self, roster: Roster, pieces: Pieces, device: torch.device) -> None:
        self._roster = roster
        self._pieces = pieces
        self._device = device
        self._rows = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)
        self._uniforms = np.zeros((0, int(roster.limit.max())))  # [B, longest limit]
        self._stop_strings: dict[int, StopStrings] = {}  # by row of the roster
        self._settings: Settings | None = None
        self._stopped = np.zeros(len(roster), dtype=np.bool_)  # over all rows of the roster
        self._watches = [request.watch for request in roster.requests]
        self._watching = any(watch is not None for watch in self._watches)
        self._unwanted = np.zeros(len(roster.requests), dtype=np.bool_)  # whose watch has said that it is enough
        self._ledger = Ledger()
        self.tokens = np.zeros(0, dtype=np.int64)
        """The token that each row drew last."""

    def __len__(self) -> int:
        return len(self._rows)

    def enter(self, rows: NDArray[np.int64]) -> None:
        """Append rows that have drawn nothing yet."""
        fresh = np.zeros((len(rows), self._uniforms.shape[1]))
        for row, numbers in zip(rows.tolist(), fresh, strict=True):
            params = self._roster.requests[self._roster.request[row]].params
            limit = int(self._roster.limit[row])
            numbers[:limit] = uniforms(params.seed, int(self._roster.index[row]), limit)
            if params.stop:
                self._stop_strings[row] = StopStrings(params.stop, self._pieces)
        self._rows = np.concatenate([self._rows, rows])
        self._counts = np.concatenate([self._counts, np.zeros_like(rows)])
        self.tokens = np.concatenate([self.tokens, np.zeros_like(rows)])
        self._uniforms = np.concatenate([self._uniforms, fresh])
        self._settings = None

    def extend(self, logits: Tensor, *, since: int) -> NDArray[np.bool_]:
        """Draw a token for each row from place ``since`` on; which of all B rows are finished.

        Rows that enter when their request's watch has had enough draw nothing.
        """
        places = np.arange(since, len(self))
        if self._watching and (unwanted := self._unwanted[self._roster.request[self._rows[since:]]]).any():
            places = places[~unwanted]
            logits = logits[torch.from_numpy(places - since).to(logits.device)]
        if len(places):
            self._draw(logits, places)
        finished: NDArray[np.bool_] = self._stopped[self._rows] | (self._counts == self._roster.limit[self._rows])
        return finished | self._unwanted[self._roster.request[self._rows]] if self._watching else finished

    def keep(self, order: NDArray[np.int64]) -> None:
        """Go on with the rows at these places, in this order."""
        self._rows, self._counts, self.tokens = self._rows[order], self._counts[order], self.tokens[order]
        self._uniforms = self._uniforms[order]
        self._settings = None

    def completions(self, versions: Sequence[int]) -> list[list[Completion]]:
        """All that was drawn, by request and in the order of its completions; ``versions`` are the voices'."""
        requests, roster = self._roster.requests, self._roster
        rows = np.concatenate(self._ledger.rows)
        order = np.argsort(rows, kind="stable")
        tokens = np.concatenate(self._ledger.tokens)[order].tolist()
        logprobs = torch.cat(self._ledger.logprobs).cpu().numpy()[order].tolist()
        untempered = torch.cat(self._ledger.untempered).cpu().numpy()[order].tolist() if self._ledger.untempered else []
        ends = np.bincount(rows, minlength=len(roster)).cumsum().tolist()
        found: list[list[Completion]] = [[] for _ in requests]
        likeliest = self._ledger.likeliest(len(roster)) if self._ledger.top else []
        for row, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            request = int(roster.request[row])
            params = requests[request].params
            k = params.top_logprobs
            found[request].append(
                Completion(
                    tokens=tokens[start:end],
                    logprobs=logprobs[start:end],
                    stop_reason="stop" if self._stopped[row] else "length",
                    policy_version=versions[roster.voice[roster.prompt[row]]],
                    untempered_logprobs=untempered[start:end] if params.untempered_logprobs else None,
                    top=[place[:k] for place in likeliest[row]] if k else None,
                )
            )
        return found

    def _draw(self, logits: Tensor, places: NDArray[np.int64]) -> None:
        rows = self._rows[places]
        numbers = self._uniforms[places, self._counts[places]]
        settings = self._drawn_by(rows)
        drawn = draw(logits.to(self._device), settings, torch.from_numpy(numbers).to(self._device))
        tokens = drawn.tokens.cpu().numpy()
        self._ledger.add(rows, tokens, drawn, settings)
        self.tokens[places] = tokens
        self._counts[places] += 1
        self._stopped[rows] = self._stops(rows, tokens)
        if self._watching:
            self._tell(rows, tokens, drawn.logprobs.cpu().numpy())

    def _drawn_by(self, rows: NDArray[np.int64]) -> Settings:
        """Those of all rows of the batch are kept until it changes."""
        if len(rows) < len(self):
            return self._roster.settings.settings(self._roster.request[rows], self._device)
        if self._settings is None:
            self._settings = self._roster.settings.settings(self._roster.request[rows], self._device)
        return self._settings

    def _stops(self, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the token just drawn ends its row, by itself or because it completes a stop string."""
        stops: NDArray[np.bool_] = (tokens[:, None] == self._roster.stop_ids[self._roster.request[rows]]).any(axis=1)
        if self._stop_strings:
            for place, row in enumerate(rows.tolist()):
                if row in self._stop_strings and self._stop_strings[row].completed_by(int(tokens[place])):
                    stops[place] = True
        return stops

    def _tell(self, rows: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Tell the watches of requests what their rows drew, until one says that it is enough."""
        requests, indices = self._roster.request[rows].tolist(), self._roster.index[rows].tolist()
        for request, index, token, logprob in zip(requests, indices, tokens.tolist(), logprobs.tolist(), strict=True):
            watch = self._watches[request]
            if watch is not None and not watch(index, token, logprob):
                self._watches[request] = None
                self._unwanted[request] = True
