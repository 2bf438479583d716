"""A run's charts in MLflow, as Chromium shows them: what ``docs/images/mlflow.png`` was made with.

``python scripts/mlflow_picture.py runs/demo-20261122-101500/grpo picture.png``, while the server to which the run
was sent is up: a run's ``mlflow.json`` says where.
"""

import argparse
import json
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
WIDTH, HEIGHT, SHOWN = 1400, 900, 1034
"""Of the page, in pixels; what is not shown is the column of MLflow's assistant."""
PATIENCE_MS, DRAWING_MS = 120_000, 8_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("picture", type=Path, help="where it goes")
    parser.add_argument("--charts", default="reward|entropy", help="which, by a pattern of their names")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    asked = parser.parse_args()
    told = json.loads((asked.run / "mlflow.json").read_text(encoding="utf-8"))
    url = f"{told['address']}/#/experiments/{told['experiment']}/runs/{told['run']}/model-metrics"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url, wait_until="domcontentloaded")
        page.get_by_text("Step", exact=True).first.wait_for()  # below the first chart; what is typed before it is lost
        page.get_by_placeholder("Search metric charts").press_sequentially(asked.charts)
        page.wait_for_timeout(DRAWING_MS)
        page.screenshot(path=asked.picture, clip={"x": 0, "y": 0, "width": SHOWN, "height": HEIGHT})
        browser.close()


if __name__ == "__main__":
    main()
