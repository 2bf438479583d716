"""A service with something to look at, and a browser that may ask nobody else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.service.served import Client, Served, serving

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\x1b[31m{{ 7 * 7 }}</div></body>\u202egnp.exe"
)
STEPS = 40


@pytest.fixture(scope="module")
def house(tmp_path_factory, tiny_model) -> Iterator[Served]:
    """A service with a run that has curves, checkpoints, draws and episodes, and one that has nothing."""
    with serving(tmp_path_factory.mktemp("service") / "state", tiny_model) as served:
        with served.client() as client:
            furnish(client)
            furnish_with_hostile_words(client)
        yield served


def furnish(client: Client) -> None:
    """Everything that the console shows."""
    run = client.new_run(id="sums", name="sums, first try", lora={"rank": 4})
    for _ in range(3):
        datum = {"tokens": [5, 6, 7, 8], "loss_mask": [0, 1, 1, 1]}
        client.result(
            client.said("POST", f"/v1/runs/{run}/forward_backward", {"data": [datum], "loss": {"type": "causal_lm"}})[
                "id"
            ]
        )
        client.result(client.said("POST", f"/v1/runs/{run}/optim_step", {"learning_rate": 0.001})["id"])
    rows = [
        {
            "step": step,
            "reward/mean": 1 - 0.9 * 0.93**step + 0.02 * (step % 5),
            "heldout/reward": 1 - 0.92 * 0.94**step,
            "policy/kl": 0.002 * step,
            "loss": 2.2 * 0.95**step,
            "speed/tokens_per_second": 2400 + 90 * (step % 7),
        }
        for step in range(1, STEPS + 1)
    ]
    client.said("POST", f"/v1/runs/{run}/metrics", {"rows": rows})
    client.result(client.said("POST", f"/v1/runs/{run}/save_state", {"name": "step-3"})["id"])
    client.said("POST", "/v1/runs/sums/episodes", {"episodes": [*map(sample, range(8))]})


def furnish_with_hostile_words(client: Client) -> None:
    """A run whose name and episodes would like to be more than text."""
    client.new_run(id="hostile", name=HOSTILE, lora={"rank": 2})
    client.said("POST", "/v1/runs/hostile/episodes", {"episodes": [episode(HOSTILE), episode("x" * 200_000)]})


def episode(text: str) -> dict:
    return {
        "step": 1,
        "group": text[:50],
        "reward": 0.5,
        "components": {text[:60]: 0.5},
        "note": text,
        "messages": [{"role": "user", "content": text}, {"role": text[:30], "content": text}],
        "tokens": [{"text": text, "logprob": -0.4}],
    }


def sample(place: int) -> dict:
    right = place % 4 != 1
    reply = ("3", " + ", "4", " = ", "7" if right else "8")
    chances = (-0.05, -0.3, -0.9, -0.02, -0.2 if right else -2.4)
    return {
        "step": 12 + place // 4,
        "group": f"sum-{place // 4}",
        "reward": float(right),
        "advantage": 0.5 if right else -1.5,
        "components": {"answer": float(right), "format": 0.0},
        "messages": [
            {"role": "system", "content": "Answer with the whole sum."},
            {"role": "user", "content": "What is 3 + 4?"},
            {"role": "assistant", "content": "".join(reply)},
        ],
        "tokens": [{"text": text, "logprob": chance} for text, chance in zip(reply, chances, strict=True)],
        "note": "expected 7",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium. While it is there no other event loop can run in this thread."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM} here: install Debian's package chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield found
        found.close()


@dataclass
class Looked:
    """Pages, and what they did that they must not."""

    context: BrowserContext
    wrong: list[str] = field(default_factory=list)

    def page(self) -> Page:
        """A new page whose errors and requests are watched."""
        page = self.context.new_page()
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._check(request.url))
        return page

    def _check(self, url: str) -> None:
        if urlsplit(url).hostname != "127.0.0.1":
            self.wrong.append(url)


@pytest.fixture
def looking(browser) -> Iterator[Callable[..., Looked]]:
    """Makes contexts; at the end none may have met an error or asked another machine."""
    made: list[Looked] = []

    def look(**settings) -> Looked:
        made.append(Looked(browser.new_context(**settings)))
        return made[-1]

    yield look
    for looked in made:
        looked.context.close()
    assert [wrong for looked in made for wrong in looked.wrong] == []


def sign_in(page: Page, served: Served, key: str, *, path: str = "/") -> None:
    """Through the form, as a person does."""
    page.goto(f"{served.url}{path}")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{served.url}{path}")


@pytest.fixture
def page(house, looking) -> Page:
    """Somebody who has signed in."""
    page = looking(viewport={"width": 1200, "height": 800}).page()
    sign_in(page, house, house.key)
    return page
