"""The torch backend: every operation of the seam, one at a time, in this process."""

import logging
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import torch

from fettle.config import AdamW, LocalEngine, LossConfig, PolicySpec
from fettle.engine.base import Capabilities, SampleRequest
from fettle.engine.local import reading
from fettle.engine.local.decode import Decoder
from fettle.engine.local.forward import Voice, hosted
from fettle.engine.local.frozen import FrozenModels
from fettle.engine.local.head import Head
from fettle.engine.local.lean import lean_forward
from fettle.engine.local.model import LanguageModel, Precision, load_model
from fettle.engine.local.packing import packs
from fettle.engine.local.policy import STATE, LocalPolicy, saved_state
from fettle.engine.local.quantized import Quantization
from fettle.engine.local.ways import ways
from fettle.errors import EngineError, FettleError, ModelError, NotFoundError
from fettle.losses import LOSSES
from fettle.types import Checkpoint, Completion, Datum, Floats, ForwardResult, OptimResult, Tokens

logger = logging.getLogger(__name__)

GIB = 1 << 30


class LocalBackend:
    """Satisfies ``Backend``. ``checkpoints`` is the folder that ``save`` writes into.

    With ``sampling_threads``, ``sample`` may be called from a second thread beside everything else. Weights that are
    pinned are then copied at once, and whoever runs a model's modules holds its ``turn``.
    """

    def __init__(self, settings: LocalEngine, *, checkpoints: Path) -> None:
        self._settings = settings
        self._checkpoints = checkpoints
        self._device = _device(settings.device)
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

    def capabilities(self) -> Capabilities:
        """What this process can do."""
        return capabilities(self._settings)

    def create_policy(self, policy: str, spec: PolicySpec) -> int:
        """Load the model and make what is trained in it."""
        with self._lookup:
            model = self._model_for(spec, _name(spec))
            try:
                with model.turn:
                    self._policies[policy] = LocalPolicy(spec, model)
            except FettleError:
                self._drop_unused()
                raise
        return 0

    def load_policy(self, policy: str, checkpoint: str, *, optimizer: bool) -> int:
        """The policy as it was saved."""
        folder = Path(checkpoint)
        spec, version = saved_state(folder)
        with self._lookup:
            model = self._model_for(spec, _name(spec) if spec.lora else checkpoint)
            try:
                with model.turn:
                    loaded = LocalPolicy(spec, model, version=version)
                    loaded.restore(folder, optimizer=optimizer)
            except FettleError:
                self._drop_unused()
                raise
            self._policies[policy] = loaded
        return version

    def forward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """No gradient."""
        with self._learning(policy) as held:
            return held.forward(data, loss, budget=self._settings.train_tokens)

    def forward_backward(self, policy: str, data: Sequence[Datum], loss: LossConfig) -> ForwardResult:
        """Accumulate."""
        with self._learning(policy) as held:
            return held.forward_backward(data, loss, budget=self._settings.train_tokens)

    def optim_step(self, policy: str, optimizer: AdamW, *, undoable: bool = False) -> OptimResult:
        """Apply and clear."""
        with self._learning(policy) as held:
            return held.optim_step(optimizer, undoable=undoable)

    def undo(self, policy: str) -> OptimResult:
        """Take the last step back."""
        with self._learning(policy) as held:
            return held.undo()

    def statistics(self) -> Mapping[str, float]:
        """Of the cache of frozen models."""
        with self._lookup:
            return self._frozen.statistics()

    def save(self, policy: str, name: str, *, optimizer: bool) -> Checkpoint:
        """Into the folder of checkpoints."""
        with self._learning(policy) as held:
            return held.save(self._checkpoints / name, optimizer=optimizer)

    def close_policy(self, policy: str) -> None:
        """Forget it, and its base once nobody uses that."""
        self._policy(policy)
        with self._lookup:
            gone = self._policies.pop(policy)
            self._pinned = {name: owner for name, owner in self._pinned.items() if owner is not gone}
            decoder = self._decoders.get(id(gone.model))
            self._drop_unused()
        if decoder is not None:
            decoder.forget(weakref.ref(gone))

    def pin(self, policy: str) -> tuple[str, int]:
        """A name for the weights as they are now."""
        owner = self._policy(policy)
        self._pins_made += 1
        name = f"{policy}@{owner.version}#{self._pins_made}"
        owner.pin(name, copied=self._settings.sampling_threads is not None)
        self._pinned[name] = owner
        return name, owner.version

    def unpin(self, weights: str) -> None:
        """A policy closed meanwhile took its pins with it."""
        if weights in self._pinned:
            self._pinned.pop(weights).unpin(weights)

    def open(self, weights: str) -> int:
        """Load a model, or a checkpoint's, to be sampled."""
        return self._frozen_model(weights)[1]

    def sample(self, weights: Sequence[str], requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """The requests of one model in one decode batch, adapters beside each other."""
        self._count(self._settings.sampling_threads)
        voiced = [self._voice(name) for name in weights]
        found: list[list[Completion]] = [[] for _ in requests]
        for group in dict.fromkeys((id(model), id(voice.tensors)) for model, voice in voiced):
            own = [i for i, (model, voice) in enumerate(voiced) if (id(model), id(voice.tensors)) == group]
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
        return model

    def _frozen_model(self, weights: str) -> tuple[LanguageModel, int]:
        """A model to be sampled, in the precision of the policy that it is the checkpoint or the base of."""
        if "@" in weights and "#" in weights:
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
            model = self._loaded(weights, spec.precision, quantization=spec.quantization)
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


def capabilities(settings: LocalEngine, policy: PolicySpec | None = None) -> Capabilities:
    """What a backend of these settings could do, and how it would run ``policy``, told without making either.

    A device that is not here has no memory: a recipe for a bigger machine can still be planned on this one.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        memory = psutil.virtual_memory().total
    elif torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(torch.device(device)).total_memory
    else:
        memory = psutil.virtual_memory().total if torch.backends.mps.is_available() else 0
    return Capabilities(
        engine="local",
        device=device,
        losses=tuple(LOSSES),
        precisions=("float32", "bfloat16"),
        threads=settings.threads or torch.get_num_threads(),
        memory_bytes=memory,
        sampling_beside=settings.sampling_threads is not None,
        paths={} if policy is None else ways(settings, policy),
    )


def _name(spec: PolicySpec) -> str:
    if not isinstance(spec.model, str):
        raise ModelError("policy.model describes a tiny model: make it first with make_tiny_model, and name its folder")
    return spec.model


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "engine.device is cuda, and torch sees no GPU here: use cpu, or install a CUDA build of torch"
        )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise EngineError("engine.device is mps, and torch sees none here: use cpu")
    return torch.device(wanted)
