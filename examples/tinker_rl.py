"""Reinforcement learning with the public `tinker` SDK: a model learns to say more and more e's.

The address and the key are read from TINKER_BASE_URL and TINKER_API_KEY: python examples/tinker_rl.py
"""

import numpy as np
import tinker
from tinker import types

STEPS, GROUP, LENGTH = 20, 32, 8


def datum(prompt: list[int], drawn: types.SampledSequence, advantage: float) -> types.Datum:
    """What was drawn, with the log-probabilities it was drawn at; the prompt earns nothing."""
    tokens = [*prompt, *drawn.tokens]
    before = [0.0] * (len(prompt) - 1)
    inputs = {
        "target_tokens": np.array(tokens[1:]),
        "logprobs": np.array([*before, *drawn.logprobs], np.float32),
        "advantages": np.array([*before, *[advantage] * len(drawn.tokens)], np.float32),
    }
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={name: types.TensorData.from_numpy(values) for name, values in inputs.items()},
    )


def main() -> None:
    """Sample, reward, step."""
    with tinker.ServiceClient() as service:
        served = tinker.RestClient().get_server_capabilities().result().supported_models
        model = served[0].model_name
        training = service.create_lora_training_client(base_model=model, rank=16, seed=0).result()
        tokenizer = training.get_tokenizer()
        prompt = tokenizer.encode("h", add_special_tokens=False)
        for step in range(STEPS):
            sampler = training.save_weights_and_get_sampling_client().result()
            params = types.SamplingParams(max_tokens=LENGTH, stop=[], seed=step)
            group = sampler.sample(types.ModelInput.from_ints(prompt), GROUP, params).result().sequences
            rewards = np.array([tokenizer.decode(drawn.tokens).count("e") / LENGTH for drawn in group])
            advantages = rewards - rewards.mean()
            data = [datum(prompt, drawn, float(a)) for drawn, a in zip(group, advantages, strict=True)]
            training.forward_backward(data, "importance_sampling")
            training.optim_step(types.AdamParams(learning_rate=5e-2)).result()
            print(f"step {step:2}  reward {rewards.mean():.3f}  {tokenizer.decode(group[0].tokens)!r}")


if __name__ == "__main__":
    main()
