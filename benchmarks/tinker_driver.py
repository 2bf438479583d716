"""A program of the ``tinker`` SDK, told by lines of JSON what to do: ``python tinker_driver.py URL KEY MODEL RANK``.

It runs in the environment of whichever SDK the server speaks, so it imports nothing else. Each line asks for one
measurement; the answer is a line that begins with ``@record``.
"""

import json
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import tinker

MARK = "@record "
FIRST_ID, VOCABULARY = 5, 500
PROMPT_TOKENS = 16


class Driver:
    """One LoRA policy on a server, and a sampler of it."""

    def __init__(self, url: str, key: str, model: str, rank: int) -> None:
        service = tinker.ServiceClient(base_url=url, api_key=key)
        made: Any = service.create_lora_training_client(base_model=model, rank=rank, seed=0, train_unembed=False)
        self._training = made.result() if hasattr(made, "result") else made  # newer SDKs give a future
        self._sampler = self._training.save_weights_and_get_sampling_client(name="start")
        self._random = Random(0)

    def train(self, sequences: int, tokens: int) -> dict[str, Any]:
        """Seconds of one ``forward_backward`` and one ``optim_step``, submitted together and waited for."""
        data = [self._datum(tokens) for _ in range(sequences)]
        started = time.perf_counter()
        gradient = self._training.forward_backward(data, "cross_entropy")
        step = self._training.optim_step(tinker.AdamParams(learning_rate=1e-4))
        gradient.result()
        step.result()
        return {"seconds": time.perf_counter() - started}

    def sample(self, samples: int, tokens: int) -> dict[str, Any]:
        """Seconds of one request for completions of one prompt, and how many tokens they have."""
        prompt = tinker.ModelInput.from_ints(self._tokens(PROMPT_TOKENS))
        asked = tinker.SamplingParams(max_tokens=tokens, seed=self._random.randrange(1 << 30), temperature=1.0)
        started = time.perf_counter()
        drawn = self._sampler.sample(prompt=prompt, num_samples=samples, sampling_params=asked).result()
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": sum(len(sequence.tokens) for sequence in drawn.sequences)}

    def _tokens(self, count: int) -> list[int]:
        return [self._random.randrange(FIRST_ID, VOCABULARY) for _ in range(count)]

    def _datum(self, length: int) -> Any:
        tokens = self._tokens(length + 1)
        shape = [length]
        return tinker.Datum(
            model_input=tinker.ModelInput.from_ints(tokens[:-1]),
            loss_fn_inputs={
                "target_tokens": tinker.TensorData(data=tokens[1:], dtype="int64", shape=shape),
                "weights": tinker.TensorData(data=[1.0] * length, dtype="float32", shape=shape),
            },
        )


def main(url: str, key: str, model: str, rank: str) -> None:
    """Answer each line."""
    driver = Driver(url, key, model, int(rank))
    verbs: dict[str, Callable[..., dict[str, Any]]] = {"train": driver.train, "sample": driver.sample}
    print(f"\n{MARK}{json.dumps({'version': tinker.__version__})}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(f"\n{MARK}{json.dumps(verbs[asked.pop('do')](**asked))}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
