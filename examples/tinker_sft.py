"""Supervised fine-tuning with the public `tinker` SDK: a model learns the capitals of five countries.

The address and the key are read from TINKER_BASE_URL and TINKER_API_KEY: python examples/tinker_sft.py
"""

import numpy as np
import tinker
from tinker import types

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi"}
STEPS = 60


def datum(tokenizer, country: str, capital: str) -> types.Datum:
    """The question is read, the answer is learnt."""
    question, answer = (tokenizer.encode(text, add_special_tokens=False) for text in (f"{country}:", f" {capital}."))
    tokens = [*question, *answer, tokenizer.eos_token_id]
    weights = [0.0] * len(question) + [1.0] * (len(answer) + 1)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(np.array(tokens[1:])),
            "weights": types.TensorData.from_numpy(np.array(weights[1:], np.float32)),
        },
    )


def main() -> None:
    """Train, sample, save."""
    with tinker.ServiceClient() as service:
        served = tinker.RestClient().get_server_capabilities().result().supported_models
        model = served[0].model_name
        training = service.create_lora_training_client(base_model=model, rank=16, seed=0).result()
        tokenizer = training.get_tokenizer()
        data = [datum(tokenizer, country, capital) for country, capital in CAPITALS.items()]
        for step in range(STEPS):
            # Both are sent before either is waited for: the server carries them out in this order.
            losses = training.forward_backward(data, "cross_entropy")
            training.optim_step(types.AdamParams(learning_rate=1e-2))
            if step % 20 == 0 or step == STEPS - 1:
                print(f"step {step:2}  loss {losses.result().metrics['loss:sum']:.3f}")
        sampler = training.save_weights_and_get_sampling_client().result()
        for country in CAPITALS:
            question = types.ModelInput.from_ints(tokenizer.encode(f"{country}:", add_special_tokens=False))
            drawn = sampler.sample(question, 1, types.SamplingParams(max_tokens=12, temperature=0.0)).result()
            print(f"{country}:{tokenizer.decode(drawn.sequences[0].tokens, skip_special_tokens=True)}")
        print(f"saved as {training.save_state('capitals').result().path}")


if __name__ == "__main__":
    main()
