"""The page of `worldmodel view` in headless Chromium, driven as a visitor would.

Needs playwright, a chromium and onnxruntime-web (from the cache or npm); says so where one is
missing. Goals are clicked on the page of the shipped Two-Room, whose weights never change; VIEW_RUN
names another run of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from worldmodel.apps.cli import main
from worldmodel.apps.view.command import _Handler
from worldmodel.apps.view.runtime import CDN, find_runtime

sys.path.append(str(Path(__file__).parent))
from view_runs import save_untrained

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("the page's tests need chromium", allow_module_level=True)

SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True,
        "is_mobile": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _two_horizons() -> Iterator[None]:
    """Two graphs of futures instead of three: tracing one takes seconds."""
    # Not at collection: processes that disagree there could not share the tests.
    if find_runtime(None) is None:
        pytest.skip("the page's tests need onnxruntime-web: npm, or a cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldmodel.apps.view.command._HORIZONS", [3, 5])
        yield


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served as the command serves it."""
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def site_of(run: Path, out: Path, *words: str) -> Path:
    """A run's page."""
    assert main(["view", str(run), "--out", str(out), "--no-serve", *words]) == 0
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of an untrained model, and of another without SIGReg beside it."""
    home = tmp_path_factory.mktemp("small")
    run = save_untrained(home / "run")
    save_untrained(run / "without-sigreg", seed=1)
    with served(site_of(run, home / "site", "--episodes", "8", "--pairs", "2")) as address:
        yield address


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a trained run."""
    shipped = Path(__file__).parents[2] / "pretrained" / "two-room"
    run = Path(os.environ.get("VIEW_RUN") or shipped)
    with served(site_of(run, tmp_path_factory.mktemp("trained") / "site")) as address:
        yield address


@contextmanager
def opened(browser: Any, address: str, size: str = "desktop") -> Iterator[Any]:
    """The page when it is ready; afterwards nothing was wrong, and nobody else was asked."""
    wrong: list[str] = []
    asked: list[str] = []
    context = browser.new_context(**SIZES[size])
    page = context.new_page()
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.evaluate("window.viewer.ready")
    yield page
    foreign = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    context.close()
    assert wrong == []
    assert foreign == []
    assert len(asked) > 8


def click(page: Any, x: float, y: float) -> None:
    """A click in the world, at a share of its side."""
    page.locator("#world").scroll_into_view_if_needed()
    box = page.locator("#world").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def state(page: Any) -> dict[str, Any]:
    """What the page tells those who drive it."""
    found: dict[str, Any] = page.evaluate("window.viewer.state()")
    return found


@pytest.mark.parametrize("size", SIZES)
def test_a_click_sets_the_goal_and_play_acts(browser: Any, small: str, size: str) -> None:
    """The contract: canvas#world, viewer.ready, play() and state(); nothing wider than a phone."""
    with opened(browser, small, size) as page:
        before = state(page)
        assert before["goal"] is None
        assert before["planMs"] is None
        assert set(before) == {"agent", "goal", "reached", "steps", "planMs"}
        page.locator("#pace").evaluate("(s) => (s.value = 'fast')")
        click(page, 0.75, 0.25)
        after = page.evaluate("window.viewer.play()")
        assert after["goal"] == pytest.approx([168, 56], abs=1.5)
        assert after["reached"] or after["steps"] >= 300
        assert after["planMs"] > 0
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= SIZES[size]["viewport"]["width"]  # type: ignore[index]


def test_hands_drag_the_agent_draw_walls_and_keys_move_the_goal(browser: Any, small: str) -> None:
    """A drag of the disc moves it, a drag of the wall tool builds, and arrows move the goal."""
    with opened(browser, small) as page:
        page.click("#auto")
        box = page.locator("#world").bounding_box()
        scale = box["width"] / 224

        def drag(points: list[tuple[float, float]]) -> None:
            for k, (x, y) in enumerate(points):
                page.mouse.move(box["x"] + x * scale, box["y"] + y * scale)
                if k == 0:
                    page.mouse.down()
            page.mouse.up()

        drag([tuple(state(page)["agent"]), (60, 60), (50, 160)])
        assert state(page)["agent"] == pytest.approx([50, 160], abs=1)
        page.click("[data-tool=wall]")
        picture = "document.getElementById('eye').toDataURL()"
        plain = page.evaluate(picture)
        drag([(160, 40), (160, 80), (160, 120)])
        assert page.evaluate(picture) != plain
        page.click("#clear")
        assert page.evaluate(picture) == plain
        page.click("[data-tool=goal]")
        click(page, 0.25, 0.25)
        page.locator("#world").press("ArrowRight")
        assert state(page)["goal"] == pytest.approx([64, 56], abs=1.5)


def test_every_switch_leads_to_plans(browser: Any, small: str) -> None:
    """Planners, costs, horizons, candidates and both models plan without an error."""
    with opened(browser, small) as page:
        page.click("#auto")
        page.locator("#pace").evaluate("(s) => (s.value = 'fast')")
        page.click("#switches summary")
        click(page, 0.75, 0.25)
        for name, value in (
            ("planner", "icem"), ("costkind", "last"), ("costkind", "probe"), ("horizon", "3"),
            ("samples", "16"), ("iterations", "3"), ("model", "1"),
        ):  # fmt: skip
            page.select_option(f"#{name}", value)
            steps = state(page)["steps"] if name not in ("horizon", "model") else 0
            page.click("#step")
            page.wait_for_function(
                "(n) => window.viewer.state().steps > n || window.viewer.state().reached", arg=steps
            )


def test_teleports_are_seen_and_both_models_are_drawn(browser: Any, small: str) -> None:
    """Surprise draws a dot per block with a word at the meddled one; maps appear for both."""
    with opened(browser, small) as page:
        page.click("#auto")
        click(page, 0.75, 0.25)
        page.click("#teleport")
        page.wait_for_function("document.querySelectorAll('#surprisechart circle').length >= 5")
        assert page.locator("#surprisechart .word").text_content() == "teleported"
        page.evaluate("window.viewer.settle()")
        page.locator("#costs").wait_for()
        for name in ("costmap", "truemap", "map", "map0", "map1", "cost0", "cost1", "key"):
            colours = page.evaluate(
                "(n) => { const c = document.getElementById(n), g = c.getContext('2d');"
                "const d = g.getImageData(0, 0, c.width, c.height).data, s = new Set();"
                "for (let i = 0; i < d.length; i += 28) s.add(d.slice(i, i + 3).join());"
                "return s.size }",
                name,
            )
            assert colours > 5, name


def test_recorded_episodes_are_planned_through(
    browser: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without a simulator a picture is the start, another the goal, and plans are imagined."""
    data = tmp_path / "rooms.h5"
    words = ["--episodes", "12", "--length", "60", "--size", "32", "--out", str(data)]
    assert main(["data", "collect", "--env", "two-room", *words]) == 0
    run = save_untrained(tmp_path / "run")
    site = site_of(run, tmp_path / "site", "--data", str(data), "--episodes", "8")
    for size in SIZES:
        with served(site) as address, opened(browser, address, size) as page:
            page.locator("#pace").evaluate("(s) => (s.value = 'fast')")
            before = state(page)["goal"]
            click(page, 0.3, 0.3)
            assert state(page)["goal"] != before
            after = page.evaluate("window.viewer.play()")
            assert after["steps"] >= 5
            assert len(after["agent"]) == 2
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= SIZES[size]["viewport"]["width"]  # type: ignore[index]


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_public_host_is_named_and_its_files_are_checked(
    browser: Any, small: str, *, spoilt: bool
) -> None:
    """Without files of its own the page takes the runtime from its host, unless a byte is wrong."""
    with urllib.request.urlopen(f"{small}view.json") as answer:
        told = json.loads(answer.read())
    told["runtime"]["at"] = CDN
    found = find_runtime(None)
    assert found is not None
    context = browser.new_context()

    def serve(route: Any) -> None:
        content = (found / route.request.url.rsplit("/", 1)[1]).read_bytes()
        headers = {"access-control-allow-origin": "*", "content-type": "text/plain"}
        route.fulfill(body=content + b" " * spoilt, headers=headers)

    context.route(f"{CDN}**", serve)
    context.route("**/view.json", lambda route: route.fulfill(json=told))
    page = context.new_page()
    page.goto(small)
    outcome = page.evaluate("window.viewer.ready.then(() => 'ready', () => 'refused')")
    assert outcome == ("refused" if spoilt else "ready")
    assert page.locator("#failed").is_visible() is spoilt
    assert "cdn.jsdelivr.net" in page.locator("#foot").text_content()
    context.close()


@pytest.mark.slow
def test_plans_reach_as_many_goals_as_in_python(browser: Any, trained: str) -> None:
    """Success over the same 50 pairs lies within 5 points of the Python planner's."""
    with opened(browser, trained) as page:
        here = page.evaluate("window.viewer.trial()")
        python = page.evaluate("fetch('view.json').then((a) => a.json())")["models"][0]["python"]
        assert here["of"] == python["of"] == 50
        assert abs(here["reached"] - python["reached"]) / 50 <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_clicked_goals_are_reached(browser: Any, trained: str, size: str) -> None:
    """Of 20 clicked goals, on both sides of the wall, at least 19 are reached."""
    with opened(browser, trained, size) as page:
        page.locator("#pace").evaluate("(s) => (s.value = 'fast')")
        reached = 0
        for k in range(20):
            click(page, 0.12 + 0.76 * ((k * 0.618) % 1), 0.12 + 0.76 * ((k * 0.414) % 1))
            reached += bool(page.evaluate("window.viewer.play()")["reached"])
        assert reached >= 19
