"""Train on a service: a run, steps that are sent ahead, a sample, a checkpoint that comes here.

Start a service in another terminal, then: python examples/service_client.py http://127.0.0.1:8700 KEY
"""

import asyncio
import sys
from pathlib import Path

from fettle.client import FutureGroup, ServiceClient

TEXT = "I had a look at the letter that came today, and it was from you."


async def main(url: str, key: str, folder: Path) -> None:
    async with ServiceClient(url, key) as client:
        model = (await client.models())[0]["id"]
        run_id = await client.create_run(model, lora_r=None, learning_rate=1e-2)
        training = client.get_training_client(run_id)
        [tokens] = await training.tokenize([TEXT])
        batch = {"input_ids": [tokens] * 4, "attention_mask": [[1] * len(tokens)] * 4}

        # The first await: the service has the call, in its place among the others. Nothing waits for results here.
        losses = FutureGroup()
        for _ in range(60):
            losses.add(await training.forward_backward_async(batch, "causal_lm"))
            await training.optim_step_async()

        # The second await: the results.
        results = await losses.wait_all()
        print(f"loss {results[0]['loss']:.2f}, after {len(results)} steps {results[-1]['loss']:.2f}")
        drawn = await training.sample([tokens[:4]], max_tokens=len(tokens) - 4, temperature=0.0)
        print(f"it says: {drawn['outputs'][0].strip()}")

        saved = await training.save_state("learned")
        print(f"saved {saved['checkpoint_path']}")
        print(f"and copied into {await client.download_checkpoint(saved['checkpoint_path'], folder / run_id)}")
        await training.complete()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path.cwd()))
