"""The console's pictures: a real service, a recipe that really trains there, and a real browser.

``python scripts/console_pictures.py`` serves a tiny model, trains ``configs/arithmetic-service.yaml`` there with fewer
steps, and writes ``docs/console``. It takes three minutes on two cores, and needs Chromium.
"""

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from fettle.cli.sources import conversations_of
from fettle.config import Pipeline, RLRun, SFTRun, TinyModel
from fettle.config.load import load
from fettle.engine.local import make_tiny_model
from fettle.environments import suite
from fettle.types import Task

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "console"
RECIPE = ROOT / "configs" / "arithmetic-service.yaml"
STEPS = 60
"""Of reinforcement; pictures of a run under way are taken when most of them are done."""
OVERRIDES = ("stages.0.steps=300", "stages.0.data.slips=0.6", f"stages.1.steps={STEPS}", "stages.1.evaluation.every=10")
TEXTS = 2000
TASKS, ANSWERS = 3, 4
"""Told of with the probability of each token: so many of each."""
FETTLE = (sys.executable, "-c", "from fettle.cli import main; main()")
KEY_ENV = "FETTLE_KEY"
"""Where the recipe looks for its key."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
WIDE, NARROW = 1100, 360
PATIENCE_S = 900.0


def main() -> None:
    """Train, look, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder) as (url, key), browser(asked.chromium) as chromium:
            client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
            training = trained(folder, url, key)
            run = under_way(client, training, folder / "training")
            picture(chromium, url, key, "/", "runs-light", height=330)
            picture(chromium, url, key, f"/runs/{run}", "run-dark", height=900, dark=True)
            if training.wait(PATIENCE_S):
                sys.exit(f"the recipe failed: {(folder / 'training').read_text()[-3000:]}")
            practised = told_of(client, run)
            picture(chromium, url, key, f"/runs/{run}", "run-narrow", height=740, width=NARROW)
            picture(chromium, url, key, f"/runs/{practised}/samples", "samples-light", height=900)
            picture(
                chromium,
                url,
                key,
                f"/runs/{practised}/samples",
                "samples-narrow-dark",
                height=740,
                width=NARROW,
                dark=True,
            )


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """A service of a tiny model whose tokenizer knows sums: its address, and a key."""
    warm_up, _ = stages()
    learned, _ = conversations_of(warm_up.data, ())
    texts = (message.content for conversation in learned for message in conversation)
    model = make_tiny_model(TinyModel(), folder / "tiny", texts=itertools.islice(texts, TEXTS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    state = ["--state", str(folder / "state")]
    command = [*FETTLE, "serve", "--model", f"tiny={model}", *state, "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url), process, folder / "log")
        made = subprocess.run(
            [*FETTLE, "keys", "create", "--tenant", "ada", "--json", *state], capture_output=True, text=True, check=True
        )
        yield url, json.loads(made.stdout)["secret"]
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    """Whether the service is ready."""
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def until(there: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once something is there that a process makes.

    Raises:
        SystemExit: the process ended before, or it takes too long.
    """
    began = time.monotonic()
    while not there():
        if process.poll() or time.monotonic() - began > PATIENCE_S:
            sys.exit(f"a process did not get there, and ended with {process.poll()}: {log.read_text()[-3000:]}")
        time.sleep(0.5)


def overrides(url: str) -> list[str]:
    """The recipe with fewer steps, at this address."""
    return [*OVERRIDES, *(f"stages.{stage}.engine.url={url}" for stage in (0, 1))]


def stages(url: str = "http://127.0.0.1:1") -> tuple[SFTRun, RLRun]:
    """The recipe's two stages."""
    recipe = load(str(RECIPE), overrides(url))
    assert isinstance(recipe, Pipeline)
    warm_up, practice = recipe.stages
    assert isinstance(warm_up, SFTRun)
    assert isinstance(practice, RLRun)
    return warm_up, practice


def trained(folder: Path, url: str, key: str) -> subprocess.Popen[bytes]:
    """The recipe, under way."""
    command = [*FETTLE, "train", str(RECIPE), *overrides(url)]
    with (folder / "training").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env={**os.environ, KEY_ENV: key}, stdout=log, stderr=log)


def under_way(client: httpx.Client, training: subprocess.Popen[bytes], log: Path) -> str:
    """The run of the second stage, once most of its steps are made."""

    def newest() -> str | None:
        runs = client.get("/v1/runs").json()["runs"]
        return str(runs[0]["id"]) if len(runs) >= 2 else None

    def far() -> bool:
        run = newest()
        rows = client.get(f"/v1/runs/{run}/metrics").json()["rows"] if run else []
        return max((row["step"] for row in rows), default=0) >= 0.8 * STEPS

    until(far, training, log)
    return str(newest())


def told_of(client: httpx.Client, run: str) -> str:
    """A run that goes on from the newest checkpoint, and tells of what it draws as a client's own program would."""
    checkpoint = client.get(f"/v1/runs/{run}/checkpoints").json()["checkpoints"][0]["id"]
    said = {"checkpoint": checkpoint, "name": "practised"}
    practised = client.post("/v1/runs", params={"wait": 30}, json=said).json()["id"]
    _, practice = stages()
    tasks = suite(practice.environments[0]).heldout_tasks()[:TASKS]
    episodes = [episode for place, task in enumerate(tasks) for episode in group(client, practised, place, task)]
    client.post(f"/v1/runs/{practised}/episodes", json={"episodes": episodes}).raise_for_status()
    return str(practised)


def group(client: httpx.Client, run: str, place: int, task: Task) -> list[dict[str, Any]]:
    """Answers to one task, with the probability of each of their tokens."""
    messages = [{"role": message.role, "content": message.content} for message in task.prompt]
    prompt = client.post("/v1/chat_template", json={"model": "tiny", "messages": messages}).json()["tokens"]
    said = {"prompts": [prompt], "n": ANSWERS, "max_tokens": 48, "temperature": 1.0}
    drawn = client.post(f"/v1/runs/{run}/sample", params={"wait": 30}, json=said).json()["result"]
    rewards = [float(f"<answer>{task.data['answer']}</answer>" in output) for output in drawn["outputs"]]
    mean = sum(rewards) / len(rewards)
    return [
        {
            "step": STEPS,
            "group": f"sum {place + 1}",
            "reward": reward,
            "advantage": reward - mean,
            "messages": [*messages, {"role": "assistant", "content": output}],
            "tokens": tokens_of(client, ids, logprobs),
            "note": f"expected {task.data['answer']}",
        }
        for output, ids, logprobs, reward in zip(
            drawn["outputs"], drawn["token_ids"], drawn["token_logprobs"], rewards, strict=True
        )
    ]


def tokens_of(client: httpx.Client, ids: Sequence[int], logprobs: Sequence[float]) -> list[dict[str, Any]]:
    """Each token's text with the logarithm of its probability."""
    texts = client.post("/v1/detokenize", json={"model": "tiny", "tokens": [[id] for id in ids]}).json()["text"]
    return [{"text": text, "logprob": logprob} for text, logprob in zip(texts, logprobs, strict=True)]


@contextmanager
def browser(chromium: str) -> Iterator[Browser]:
    """Headless Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield found
        found.close()


def picture(
    chromium: Browser, url: str, key: str, path: str, name: str, *, height: int, width: int = WIDE, dark: bool = False
) -> None:
    """One page, as somebody sees it who has signed in."""
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(f"{url}/")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{url}/")
    page.goto(f"{url}{path}")
    _settled(page)
    page.screenshot(path=PICTURES / f"{name}.png")
    print(f"wrote {PICTURES / f'{name}.png'}")
    context.close()


def _settled(page: Page) -> None:
    """Returns once curves are drawn, where there are any."""
    page.wait_for_load_state("load")
    if page.locator("#curves").count():
        page.locator(".curve canvas").first.wait_for()


if __name__ == "__main__":
    main()
