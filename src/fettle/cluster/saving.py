"""Checkpoints that ranks write while they compute on; what was being written when one is lost is begun again."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from fettle.cluster.rank import Answer
from fettle.cluster.ranks import Asked, LostError, Ranks
from fettle.engine.local.copied import saved_at
from fettle.errors import CheckpointError, EngineError
from fettle.types import Checkpoint


class Saving:
    """A checkpoint that was asked for."""

    def __init__(self, policy: str, name: str, folder: Path, *, optimizer: bool) -> None:
        self.name = name
        self.folder = folder
        self.said, self.how = (policy, name), {"optimizer": optimizer}
        """What ranks are told."""
        self.found: Future[Checkpoint] = Future()
        self.begun = False
        self.asked: list[Asked] = []
        """What was asked of each rank that writes: to say when it has."""

    def begin(self, ranks: Ranks, copied: Callable[[], object], *, parted: bool) -> None:
        """Have the policy ``copied``, which is as it is to be saved; also again, where ranks were lost over it.

        Where it is ``parted`` every rank writes.
        """
        there = self.folder.exists()
        if self.begun and there:  # the rank that wrote it was lost before it could say so
            self._say(saved_at(self.folder))
            return
        again, self.begun = self.begun, not there
        try:
            copied()
        except CheckpointError:
            if not (again and self.folder.exists()):
                raise
            self._say(saved_at(self.folder))  # it was made whole just now
            return
        self.asked = ranks.ask("written", self.name, first=not parted)

    def follow(self, ranks: Ranks, mended: Callable[[LostError], None]) -> None:
        """See it to its end on a thread of its own; ``mended`` makes good a loss, and has it begun again."""
        Thread(target=self._follow, args=(ranks, mended), name="fettle-saves", daemon=True).start()

    def _follow(self, ranks: Ranks, mended: Callable[[LostError], None]) -> None:
        try:
            while not self.found.done():
                asked = self.asked
                try:
                    self._wait(ranks, asked)
                except LostError as error:
                    mended(error)
                    if self.asked is asked and not self.found.done():
                        self._end()
        except Exception as error:  # noqa: BLE001  it is raised where the checkpoint is waited for
            if not self.found.done():
                self.found.set_exception(error)

    def _end(self) -> None:
        """Nobody begins it again: the policy was closed or written down since."""
        if not self.folder.exists():
            raise EngineError(f"the checkpoint {self.folder} was lost with the rank that wrote it: save again")
        self._say(saved_at(self.folder))

    def _wait(self, ranks: Ranks, asked: Sequence[Asked]) -> None:
        written = [_checkpoint(ranks.answer(each)) for each in asked]
        if not written[0].digest:  # nobody has made it one yet
            generation = asked[0].generation
            [seal] = ranks.ask("sealed", self.name, first=True, generation=generation)
            written = [_checkpoint(ranks.answer(seal))]
        self._say(written[0])

    def _say(self, checkpoint: Checkpoint) -> None:
        if not self.found.done():
            self.found.set_result(checkpoint)


def _checkpoint(answer: Answer) -> Checkpoint:
    if answer.error is not None:
        raise answer.error
    assert isinstance(answer.result, Checkpoint), "a rank that has written says what"
    return answer.result
