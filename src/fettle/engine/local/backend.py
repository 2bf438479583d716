"""The torch backend: every operation of the seam, one at a time, in this process."""

import logging
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from fettle.config import AdamW, LocalEngine, LossConfig, PolicySpec
from fettle.engine.base import Capabilities, Pooling, ReadRequest, SampleRequest
from fettle.engine.local import embedding, places, reading, snapshot
from fettle.engine.local.capacity import capabilities, device_of, needed_bytes
from fettle.engine.local.copied import STATE, saved_state
from fettle.engine.local.decode import Decoder
from fettle.engine.local.forward import Voice, hosted
from fettle.engine.local.frozen import FrozenModels
from fettle.engine.local.group import ALONE, Group, writers
from fettle.engine.local.head import Head
from fettle.engine.local.lean import lean_forward
from fettle.engine.local.model import LanguageModel, Precision, load_model
from fettle.engine.local.packing import packs
from fettle.engine.local.parted import gathered, part_layers
from fettle.engine.local.policy import LocalPolicy
from fettle.engine.local.quantized import Quantization
from fettle.engine.local.saving import Saves
from fettle.errors import EngineError, FettleError, ModelError, NotFoundError
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, PromptReading, Tokens

logger = logging.getLogger(__name__)

GIB = 1 << 30

RELEASED = 4096
"""How many names of pins that were let go are remembered, so that they are not taken for models."""


class LocalBackend:
    """Satisfies ``Backend``. ``checkpoints`` is the folder that ``save`` writes into.

    With ``sampling_threads``, ``sample`` may be called from a second thread beside everything else. Weights that are
    pinned are then copied at once, and whoever runs a model's modules holds its ``turn``.
    """

    def __init__(self, settings: LocalEngine, *, checkpoints: Path, group: Group = ALONE) -> None:
        self._settings = settings
        self._group = group
        self._device = device_of(settings.device, settings.gpu_ids)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._threads = torch.get_num_threads()
        self._lookup = threading.RLock()  # of models and decoders, which both threads look up
        self._policies: dict[str, LocalPolicy] = {}
        self._bases: dict[tuple[str, str, str | None], LanguageModel] = {}
        self._frozen = FrozenModels(int(settings.frozen_gib * GIB))
        self._pinned: dict[str, LocalPolicy] = {}
        self._decoders: dict[int, Decoder] = {}
        self._pins_made = 0
        self._released: deque[str] = deque(maxlen=RELEASED)
        self._saves = Saves(checkpoints)

    def regroup(self, group: Group) -> None:
        """Be one of another group, in which no policy has been made yet; models that are here stay."""
        with self._lookup:
            if self._group.parts:  # pieces of what others held
                self._bases, self._frozen = {}, FrozenModels(int(self._settings.frozen_gib * GIB))
            self._policies, self._pinned, self._decoders, self._group = {}, {}, {}, group

    @contextmanager
    def gathered(self, weights: Sequence[str]) -> Iterator[None]:
        """Models that are parted, whole on every rank: what is done inside, each rank does for itself.

        ``weights`` name no two versions of a model that is trained whole.
        """
        with ExitStack() as whole:
            if self._group.parts:
                models = {}
                for name in sorted(set(weights)):
                    model = self._voice(name)[0]
                    models[id(model)] = model
                    if name in self._pinned and self._pinned[name].spec.lora is None:
                        whole.enter_context(self._pinned[name].shown(name))
                for model in models.values():
                    whole.enter_context(gathered(model.module))
                    whole.callback(self._forget_weights, id(model))
            yield

    def capabilities(self) -> Capabilities:
        """What this process can do."""
        return capabilities(self._settings)

    def policy_bytes(self, spec: PolicySpec) -> int:
        """How much memory a new policy would take: see ``needed_bytes``. Nothing is allocated; any thread may ask."""
        here = spec.lora is not None and (_name(spec), spec.precision, spec.quantization) in self._bases
        return needed_bytes(spec, base_here=here, ranks=writers(self._group).size)

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """Load the model and make what is trained in it."""
        with self._making(spec, _name(spec)) as model:
            self._policies[policy] = LocalPolicy(spec, model, group=self._group)
        return 0

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """The policy as it was saved."""
        folder = Path(checkpoint)
        self._saves.wait_for(policy, folder)
        spec, version = saved_state(folder)
        with self._making(spec, _name(spec) if spec.lora else checkpoint) as model:
            loaded = LocalPolicy(spec, model, version=version, group=self._group)
            loaded.load(folder, optimizer=optimizer)
            self._policies[policy] = loaded
        return version

    def restore(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """A checkpoint in the place of what the policy is."""
        self._saves.wait_for(policy, Path(checkpoint))
        with self._learning(policy) as held:
            held.restore(Path(checkpoint), optimizer=optimizer)
            return held.version

    def snapshot(self, policy: str, folder: Path) -> None:
        """All but the frozen base."""
        self._saves.wait_for(policy)
        with self._learning(policy) as held:
            held.snapshot(folder)

    def revive(self, policy: str, folder: Path) -> None:
        """From the frozen base, which is loaded if it is not here, and the snapshot.

        Raises:
            CheckpointError: the snapshot is not whole, or its model has changed.
            EngineError: there is a policy of that name, or not enough memory.
        """
        if policy in self._policies:
            raise EngineError(f"there is a policy {policy!r} here: close it before it is revived")
        spec = snapshot.spec_of(folder)
        with self._making(spec, _name(spec)) as model:
            held = LocalPolicy(spec, model, group=self._group)
            pins = held.go_on_from(folder, copied=self._settings.sampling_threads is not None)
            self._policies[policy] = held
            self._pinned |= dict.fromkeys(pins, held)

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """No gradient."""
        with self._learning(policy) as held:
            return held.forward(data, loss, budget=self._settings.train_tokens)

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate."""
        with self._learning(policy) as held:
            return held.forward_backward(data, loss, budget=self._settings.train_tokens)

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False, empty: bool = False) -> OptimResult:
        """Apply and clear."""
        with self._learning(policy) as held:
            return held.optim_step(optimizer, undoable=undoable, empty=empty)

    def undo(self, policy: str) -> OptimResult:
        """Take the last step back."""
        with self._learning(policy) as held:
            return held.undo()

    def statistics(self) -> Mapping[str, float]:
        """Of the cache of frozen models."""
        with self._lookup:
            return self._frozen.statistics()

    def save(self, policy: str, name: str, *, optimizer: bool) -> "Future[Checkpoint]":
        """Into the folder of checkpoints."""
        with self._learning(policy) as held:
            return self._saves.begin(policy, held, name, self._group, optimizer=optimizer)

    def seal(self, name: str) -> Checkpoint:
        """Make one checkpoint of what all ranks of a group whose layers are parted have written."""
        return self._saves.seal(name)

    def close_policy(self, policy: str) -> None:
        """Forget it, and its base once nobody uses that."""
        self._policy(policy)
        with self._lookup:
            gone = self._policies.pop(policy)
            for name in [name for name, owner in self._pinned.items() if owner is gone]:
                self._pinned.pop(name)
                self._released.append(name)
            decoder = self._decoders.get(id(gone.model))
            self._drop_unused()
        if decoder is not None:
            decoder.forget(weakref.ref(gone))

    def pin(self, policy: str, name: str | None = None) -> tuple[str, int]:
        """A name for the weights as they are now.

        Raises:
            EngineError: the name is another pin's, or there is not enough memory for a copy.
        """
        owner = self._policy(policy)
        name = self._pin_name(policy, owner.version) if name is None else name
        if name in self._pinned:
            raise EngineError(f"weights are pinned as {name!r} already: give these another name, or unpin those first")
        owner.pin(name, copied=self._settings.sampling_threads is not None)
        self._pinned[name] = owner
        return name, owner.version

    def unpin(self, weights: str) -> None:
        """A policy closed meanwhile took its pins with it."""
        if weights in self._pinned:
            self._pinned.pop(weights).unpin(weights)
            self._released.append(weights)

    def open(self, weights: str) -> int:
        """Load a model, or a checkpoint's, to be sampled."""
        return self._frozen_model(weights)[1]

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """The requests of one model in one decode batch, adapters beside each other."""
        self._count(self._settings.sampling_threads)
        voiced = [self._voice(name) for name in weights]
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (model, voice) in enumerate(voiced):
            groups.setdefault((id(model), id(voice.tensors)), []).append(place)
        if len(groups) > 1:  # what cannot be drawn is refused before anybody's watch is told of a token
            for own in groups.values():
                self._decoder(voiced[own[0]][0]).roster([requests[i] for i in own], [voiced[i][1] for i in own])
        found: list[list[Completion]] = [[] for _ in requests]
        for own in groups.values():
            decoder = self._decoder(voiced[own[0]][0])
            drawn = decoder.complete([requests[i] for i in own], [voiced[i][1] for i in own])
            for i, completions in zip(own, drawn, strict=True):
                found[i] = completions
        return found

    def logprobs(self, weights: str, sequences: Sequence[Tokens], *, temperature: float) -> list[Floats]:
        """Log-probabilities in micro-batches of like length."""
        with torch.no_grad(), self._holding(weights) as (model, _, _):
            return reading.logprobs(model, sequences, temperature=temperature, budget=self._settings.train_tokens)

    def scores(self, weights: str, sequences: Sequence[Tokens]) -> list[float]:
        """The reward head's word on each sequence, in micro-batches of like length."""
        with torch.no_grad(), self._holding(weights) as (model, _, head):
            if head is None:
                raise ModelError(
                    f"{weights} has no reward head to score with: name a model that a reward_model run has trained"
                )
            return reading.scores(model, head, sequences, budget=self._settings.train_tokens)

    def read(self, weights: str, requests: Sequence[ReadRequest]) -> list[PromptReading]:
        """What the model says at each place, in micro-batches of like length."""
        with torch.no_grad(), self._holding(weights) as (model, _, _):
            return places.read(model, requests, budget=self._settings.train_tokens)

    def embed(self, weights: str, sequences: Sequence[Tokens], *, layer: int, pooling: Pooling) -> list[Floats]:
        """One layer's states of each sequence, as one."""
        with torch.no_grad(), self._holding(weights) as (model, _, _):
            budget = self._settings.train_tokens
            return embedding.embed(model, sequences, layer=layer, pooling=pooling, budget=budget)

    @contextmanager
    def _learning(self, policy: str) -> Iterator[LocalPolicy]:
        """The policy, while no other thread runs its model's modules."""
        held = self._policy(policy)
        self._count(self._threads)
        with held.model.turn:
            yield held

    def _count(self, threads: int | None) -> None:
        """The threads for arithmetic that is called for from this thread: torch knows a number for each of them."""
        if self._settings.sampling_threads is not None and threads is not None and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    def _pin_name(self, policy: str, version: int) -> str:
        """One that no pin has, those of a revived policy among them."""
        while True:
            self._pins_made += 1
            name = f"{policy}@{version}#{self._pins_made}"
            if name not in self._pinned:
                return name

    @contextmanager
    def _making(self, spec: PolicySpec, source: str) -> Iterator[LanguageModel]:
        """The model in which a policy is made, which is let go again if none is."""
        with self._lookup:
            model = self._model_for(spec, source)
            try:
                with model.turn:
                    yield model
            except FettleError:
                self._drop_unused()
                raise

    def _policy(self, policy: str) -> LocalPolicy:
        if policy not in self._policies:
            raise NotFoundError(f"there is no policy {policy!r} here: it was closed, or never made")
        return self._policies[policy]

    def _model_for(self, spec: PolicySpec, source: str) -> LanguageModel:
        """A frozen base shared by adapters, or a model of the policy's own."""
        if spec.lora is None:
            return self._loaded(source, spec.precision, trained=True)
        key = (source, spec.precision, spec.quantization)
        if key not in self._bases:
            self._bases[key] = self._loaded(source, spec.precision, quantization=spec.quantization)
        return self._bases[key]

    def _loaded(
        self, source: str, precision: Precision, *, trained: bool = False, quantization: Quantization | None = None
    ) -> LanguageModel:
        model = load_model(source, device=self._device, precision=precision, trained=trained, quantization=quantization)
        model.packed = packs(model, self._settings.layout)
        if self._group.parts:
            part_layers(model.module)
        return model

    def _frozen_model(self, weights: str) -> tuple[LanguageModel, int]:
        """A model to be sampled, in the precision of the policy that it is the checkpoint or the base of."""
        if weights in self._released:
            raise NotFoundError(f"the sampler {weights} was released, or its policy was closed")
        with self._lookup:
            before = set(self._frozen.names)
            found = self._frozen.model(weights, self._opened)
            if before - set(self._frozen.names):
                self._drop_unused()
            return found

    def _opened(self, weights: str) -> tuple[LanguageModel, int]:
        folder = Path(weights)
        if (folder / STATE).is_file():
            spec, version = saved_state(folder)
            model = self._loaded(weights, spec.precision)
            model.head = model.head if spec.head == "reward" else None  # a critic's word is no score
            return model, version
        specs = [held.spec for held in self._policies.values() if held.spec.model == weights]
        spec = specs[0] if specs else PolicySpec(model=weights)
        base = self._bases.get((weights, spec.precision, spec.quantization))
        return base or self._loaded(weights, spec.precision), 0

    def _drop_unused(self) -> None:
        """Let go of what no policy trains and nobody samples."""
        with self._lookup:
            used = {id(held.model) for held in self._policies.values()} | {id(model) for model in self._frozen.models}
            self._bases = {key: base for key, base in self._bases.items() if id(base) in used}
            self._decoders = {key: decoder for key, decoder in self._decoders.items() if key in used}

    @contextmanager
    def _holding(self, weights: str) -> Iterator[tuple[LanguageModel, int, Head | None]]:
        self._count(self._threads)
        owner = self._pinned.get(weights)
        if owner is None:
            model, version = self._frozen_model(weights)
            with model.turn:
                yield model, version, model.head
        else:
            with owner.model.turn, owner.as_pinned(weights) as version:
                yield owner.model, version, owner.head if owner.spec.head == "reward" else None

    def _forget_weights(self, model: int) -> None:
        if model in self._decoders:
            self._decoders[model].forget_weights()

    def _voice(self, weights: str) -> tuple[LanguageModel, Voice]:
        """What is sampled, and the model that it is sampled from."""
        owner = self._pinned.get(weights)
        if owner is not None:
            return owner.model, replace(owner.voice(weights), owner=weakref.ref(owner))
        model, version = self._frozen_model(weights)
        return model, Voice(version, owner=weights)

    def _decoder(self, model: LanguageModel) -> Decoder:
        @contextmanager
        def hosting(voice: Voice) -> Iterator[None]:
            with model.turn, hosted(model.module, model.slots, voice), model.arithmetic():
                yield

        with self._lookup:
            if id(model) not in self._decoders:
                decoder = Decoder(
                    model.module,
                    lean=partial(lean_forward, model),
                    hosting=hosting,
                    end_token_ids=model.end_token_ids,
                    decode_text=model.tokenizer.decode,
                    token_budget=self._settings.sample_tokens,
                    context=model.context,
                )
                with model.turn:
                    path = decoder.path  # found out here, by trying, through the model's own modules
                logger.debug("%s is sampled on the %s path", model.source, path)
                self._decoders[id(model)] = decoder
            return self._decoders[id(model)]


def _name(spec: PolicySpec) -> str:
    if not isinstance(spec.model, str):
        raise ModelError("policy.model describes a tiny model: make it first with make_tiny_model, and name its folder")
    return spec.model
