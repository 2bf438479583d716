"""The console in a real browser: what is on each page, by mouse and by keyboard, and that nothing else is asked."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.service.faces.console.conftest import STEPS, sign_in


def test_runs_are_listed_and_found(page, house):
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    row = page.get_by_role("row", name=re.compile("sums, first try"))
    expect(row).to_contain_text("active")
    expect(row).to_contain_text("40")
    expect(row).to_contain_text("reward")
    page.get_by_label("Find").fill("hostile")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.get_by_label("Find").fill("")
    page.get_by_label("State").select_option("paused")
    with house.client() as client:
        runs = client.said("GET", "/v1/runs")["total"]
    expect(page.locator("#runs")).to_contain_text(f"None of the {runs} runs")


def test_the_list_follows_what_happens(page, house):
    page.clock.install()  # time passes as the test says
    page.reload()
    with house.client() as client:
        client.new_run(id="late", name="came later")
    page.clock.run_for(5_000)
    expect(page.get_by_role("link", name="came later")).to_be_visible()
    with house.client() as client:
        client.said("POST", "/v1/runs/late/complete")
    page.clock.run_for(5_000)
    expect(page.get_by_role("row", name=re.compile("came later"))).to_contain_text("completed")


def test_a_runs_curves_are_drawn_and_go_on(page, house):
    page.get_by_role("link", name="sums, first try").click()
    reward = page.locator(".curve", has_text="Reward")
    expect(reward.locator("canvas")).to_be_visible()
    expect(reward).to_have_attribute("data-points", str(STEPS))
    for title in ("Loss", "KL divergence", "Speed"):
        expect(page.locator(".curve", has_text=title).locator("canvas")).to_be_visible()
    expect(reward.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("Reward over 40 steps; newest: training")
    )
    with house.client() as client:
        client.said("POST", "/v1/runs/sums/metrics", {"rows": [{"step": STEPS + 1, "reward/mean": 0.987}]})
    expect(reward).to_have_attribute("data-points", str(STEPS + 1), timeout=15_000)
    expect(reward).to_contain_text("0.987")


def test_a_run_can_be_paused_resumed_and_completed(page, house):
    with house.client() as client:
        client.new_run(id="moved", name="to be moved")
    page.goto(f"{house.url}/runs/moved")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#status")).to_contain_text("active")
    page.get_by_text("Complete", exact=True).click()
    page.get_by_role("button", name="Complete it for good").click()
    expect(page.locator("#status")).to_contain_text("completed")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_checkpoints_are_downloaded_published_kept_and_deleted(page, house):
    with house.client() as client:
        client.new_run(id="saved", name="saved")
        client.result(client.said("POST", "/v1/runs/saved/save_state", {"name": "one"})["id"])
    page.goto(f"{house.url}/runs/saved")
    with page.expect_download() as told:
        page.get_by_role("link", name="Download").click()
    assert told.value.suggested_filename == "saved-weights-one.tar"
    assert told.value.path().stat().st_size > 1024
    row = page.locator("tbody tr", has_text="one")
    page.get_by_text("Change one").click()
    page.get_by_role("button", name="Let everybody read it").click()
    expect(row).to_contain_text("everybody")
    page.get_by_text("Change one").click()
    page.get_by_label("Days to keep it").fill("7")
    page.get_by_role("button", name="Keep").click()
    expect(row).to_contain_text("until 20")
    page.get_by_text("Change one").click()
    page.get_by_role("button", name="Delete one for good").click()
    expect(page.get_by_text("None yet.")).to_be_visible()


def test_samples_stand_side_by_side_with_their_rewards(page, house):
    page.goto(f"{house.url}/runs/sums/samples")
    first = page.locator(".group").first
    expect(first.get_by_role("heading")).to_contain_text("Step 13, group sum-1 mean reward 0.75 of 4")
    expect(first.locator("article")).to_have_count(4)
    expect(first.locator("article").nth(1)).to_contain_text("3 + 4 = 8")
    expect(first.locator("article").nth(1).locator(".p5")).to_have_text("8")
    page.get_by_label("Step").fill("12")
    expect(page.locator(".group")).to_have_count(1)
    expect(page.locator("article")).to_have_count(4)
    page.get_by_label("Reward from").fill("0.5")
    expect(page.locator("article")).to_have_count(3)


def test_a_runs_draws_can_be_read(page, house):
    with house.client() as client:
        client.new_run(id="drawn", lora={"rank": 2})
        client.result(client.said("POST", "/v1/runs/drawn/sampler")["id"])
        body = {"model": "run:drawn", "prompt": "one two", "n": 3, "max_tokens": 5, "seed": 1}
        client.said("POST", "/v1/completions", body)
    page.goto(f"{house.url}/runs/drawn/samples")
    expect(page.locator("article")).to_have_count(3)
    expect(page.locator(".said.heard").first).to_contain_text("one two")
    expect(page.locator("article").first.locator("[class^=p]").first).to_have_attribute("title", re.compile("nats"))


@pytest.mark.parametrize("path", ["/", "/queue", "/runs/hostile", "/runs/hostile/samples"])
def test_what_models_say_is_only_ever_text(page, house, path):
    page.goto(f"{house.url}{path}")
    expect(page.locator("body")).to_contain_text("<script>document.title")
    expect(page.locator("body")).to_contain_text("␛[31m{{ 7 * 7 }}")
    expect(page.locator("body")).to_contain_text("\\u202egnp.exe")
    assert "owned" not in page.title() or "<script>" in page.title()
    assert page.locator("main img, main script").count() == 0
    assert "\u202e" not in page.content()


def test_a_huge_text_is_cut(page, house):
    page.goto(f"{house.url}/runs/hostile/samples")
    expect(page.get_by_text("180,000 more characters").first).to_be_visible()
    assert len(page.content()) < 500_000


def test_an_admin_makes_a_key_sees_it_once_and_revokes_it(house, looking):
    page = looking().page()
    sign_in(page, house, house.admin_key, path="/keys")
    page.get_by_label("Tenant").fill("three")
    page.get_by_label("Name").fill("for a test")
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator(".secret").inner_text()
    assert httpx.get(f"{house.url}/v1/runs", headers={"X-API-Key": secret}).status_code == 200
    page.goto(f"{house.url}/keys")
    assert secret not in page.content()
    id = secret.split("-")[1]
    page.get_by_text(f"Revoke {id}").first.click()
    page.get_by_role("button", name=f"Revoke {id} for good").click()
    expect(page.get_by_role("row", name=re.compile("for a test"))).to_contain_text("revoked")
    assert httpx.get(f"{house.url}/v1/runs", headers={"X-API-Key": secret}).status_code == 401


def test_usage_is_told(page, house):
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("row", name=re.compile("forward backward"))).to_contain_text("3")


def test_the_queue_says_how_the_service_stands(page, house):
    page.get_by_role("link", name="Queue").click()
    expect(page.locator("#queue")).to_contain_text("ready", timeout=15_000)
    expect(page.locator("#queue")).to_contain_text("operations waiting")
    expect(page.locator("tr", has_text="Qwen/Qwen3-8B")).to_be_visible()


def test_a_wrong_key_stays_outside(house, looking):
    looked = looking()
    page = looked.page()
    page.goto(f"{house.url}/sign-in")
    page.get_by_label("Key").fill("tml-wrong-key")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("no such key")
    assert ["401" in wrong for wrong in looked.wrong] == [True]
    looked.wrong.clear()


def test_signing_out_ends_it(page, house):
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{house.url}/sign-in")
    page.goto(f"{house.url}/runs/sums")
    expect(page).to_have_url(re.compile("/sign-in"))


def test_who_has_no_runs_is_told_how_to_begin(house, looking):
    page = looking().page()
    sign_in(page, house, house.other_key)
    expect(page.locator("#runs")).to_contain_text("No runs yet")
    expect(page.locator("#runs")).to_contain_text(f"engine.url={house.url}")


def test_all_can_be_reached_by_keyboard(page, house):
    page.goto(f"{house.url}/runs/sums")
    reached = []
    while page.keyboard.press("Tab") or page.evaluate("document.activeElement !== document.body"):
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.name"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[0] == "Skip to the content"
    assert reached[1:5] == ["Fettle", "Runs", "Queue", "Usage"]
    assert {"Sign out", "Pause", "Samples", "Complete", "Download", "Change step-3"} <= set(reached)
    page.goto(f"{house.url}/runs/sums")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize(
    "path", ["/", "/runs/sums", "/runs/sums/samples", "/runs/hostile/samples", "/queue", "/usage", "/keys"]
)
def test_a_narrow_screen_is_enough(house, looking, path):
    page = looking(viewport={"width": 360, "height": 740}).page()
    sign_in(page, house, house.admin_key if path == "/keys" else house.key)
    page.goto(f"{house.url}{path}")
    expect(page.get_by_role("heading").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_reader_chooses_light_or_dark(house, looking):
    grounds = {}
    for scheme in ("light", "dark"):
        page = looking(color_scheme=scheme, reduced_motion="reduce").page()
        sign_in(page, house, house.key)
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert page.evaluate("getComputedStyle(document.querySelector('.skip')).transitionDuration") == "0s"
    assert grounds == {"light": "rgb(250, 250, 248)", "dark": "rgb(20, 22, 26)"}


def test_without_javascript_only_the_curves_are_missing(house, looking):
    page = looking(java_script_enabled=False).page()
    sign_in(page, house, house.key)
    page.goto(f"{house.url}/?q=sums")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.goto(f"{house.url}/runs/sums/samples?step=12")
    expect(page.locator("article")).to_have_count(4)
