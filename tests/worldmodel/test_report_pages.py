"""Pages: one file each, nothing foreign runs in them, and a phone shows all of them."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worldmodel.apps.report import index_page, render, study_page, training_curves, write_index
from worldmodel.apps.report.charts import LatentMap
from worldmodel.apps.report.pages import interval, number, p_value, percent, plural, points
from worldmodel.apps.study.measures import Found
from worldmodel.study import Estimate, PairedTest, ProbeScore

HOSTILE = "</style></title><script>parent.ran=1</script>\"'><img src=x onerror=parent.ran=1>$x$"
ADDRESS = "javascript:parent.ran=1//"
PAGES = ("study", "evaluate", "compare", "tune", "demo", "index")
E10 = Estimate(0.5, 0.25, 0.75, 10)
TEST = PairedTest(E10, E10, 2.0, 0.04, E10)
PIXELS = np.zeros((2, 16, 16, 3), np.uint8)


def study(name: str) -> Found:
    """A report whose every text is `name`."""
    score = ProbeScore(E10, E10, E10)
    strip = Found(truth=PIXELS, seen=PIXELS, dreamt=[None, PIXELS[0]])
    known, still = (
        Found(name=name, varies=varies, constant=score, linear=score, mlp=score)
        for varies in (True, False)
    )
    conditions = ("undisturbed", "recolour", "teleport")
    tests = {f"{a} against {b}": TEST for a, b in (("teleport", "undisturbed"), (name, name))}
    numbers = dict.fromkeys(("num_batches", "num_samples", "statistic", "floor", "collapse",
                             "p_value", "scale", "mean_error", "covariance_error",
                             "gaussian_rank"), 0.5)  # fmt: skip
    corners = np.asarray([[0.0, 0], [1, 0], [0, 1]])
    return Found(
        run=Found(name=name, objective=name, world=name, parameters=12_345, embedding_dims=8),
        data=Found(source=name),
        notes=[name],
        parts={
            "probes": Found(quantities=[known, still], train_episodes=10, test_episodes=10,
                            unit=name),
            "pictures": Found(explained_share=E10, side=16, columns=[0, 1], steps=3,
                              shown=[strip]),
            "foresight": Found(
                known_frames=1, horizons=[1, 2], raw_steps_per_horizon=5, model=[E10] * 2,
                copy=[E10] * 2, mean=[E10] * 2, first_horizon_no_better_than_copying=1, unit=name,
            ),
            "actions": Found(known_frames=1, horizons=[1, 2], rank=[E10] * 2,
                             variation=[E10] * 2),
            "ranking": Found(
                planner={"name": name, "cost": name, "samples": 64}, raw_steps_to_goal=25,
                problems=3, unit=name,
                stages=[Found(stage=name, correlation=E10, chosen=E10, best=E10)],
            ),
            "violations": Found(
                at_frame=1, frames=[1, 2], surprise={c: [E10] * 2 for c in conditions},
                tests=tests, pixels_changed=dict.fromkeys(conditions, E10), teleport_is=name,
                unit=name, shown=dict.fromkeys((*conditions, name), PIXELS),
            ),
            "straightness": Found(trained=E10, true_states=E10, untrained=None,
                                  checkpoints=[Found(step=2, straightness=E10)]),
            "spread": Found(effective_rank=E10, embedding_dims=8, spectrum=[0.7, 0.3],
                            report=numbers, verdict=name),
            "map": Found(coloured_by=name,
                         shown=LatentMap([0.6, 0.3], corners, corners)),
            "other": Found(unavailable=name),
        },
        seed=0, seconds=1.0, versions={"sigreg": name, "torch": name},
    )  # fmt: skip


def result(name: str) -> dict[str, Any]:
    """A result.json of 4 pairs whose every text is `name`."""
    rates: dict[str, Any] = {}
    for who in ("", "random_", "noop_"):
        rates |= {f"{who}success_rate": 0.5, f"{who}success_interval": [0.25, 0.75],
                  f"{who}success_rate_at_end": 0.25}  # fmt: skip
    outcomes = [
        {"pair": n, "repeat": 0, "success": n < 2, "success_at_end": n < 1, "final_distance": n / 7}
        for n in range(4)
    ]
    return rates | {
        "env": name, "protocol": "historical", "manifest_protocol": "held-out",
        "manifest_pairs": 8, "criterion": name, "offset": 25, "budget": 50, "pairs": 4,
        "repeats": 2, "pairs_dropped_as_solved": 1, "manifest_hash": name,
        "mean_steps_to_goal": None, "median_steps_to_goal": None, "progress_to_goal": 0.5,
        "action_roughness": 0.1, "pair_episodes": [0, 0, 1, 2], "clear_reports": [0.84, None],
        "by_rule": {name: {"criterion": name, "success_rate": 0.5, "success_rate_at_end": 0.25}},
        "final_distance": {"median": 1.5, "p95": 2.0},
        "planning_seconds": {"median": 0.1, "p95": 0.2, "pairs_per_decision": 4},
        "expert_success_rate": None, "expert_success_interval": None,
        "fingerprint": {"run": name, "planner": {"name": name}, "world_versions": {name: name},
                        "manifest_versions": {name: "1"}, "versions": {name: name}},
        "outcomes": outcomes,
    }  # fmt: skip


def compared(name: str) -> dict[str, Any]:
    """What `compare` finds of 20 pairs."""
    part = {"a": 0.5, "b": 0.75, "difference": 0.25, "pairs": 20, "only_a_better": 1,
            "only_b_better": 6, "p_value": 0.125, "episodes": 20, "a_runs": [0.5], "b_runs": [0.75],
            "a_interval": [0.3, 0.7], "b_interval": [0.5, 0.9], "interval": [0.05, 0.45],
            "smallest_difference": 0.286}  # fmt: skip
    both = {"success": part, "success_at_end": part}
    return {"manifest_hash": name, "protocol": "historical"} | both


def tuned(name: str) -> dict[str, Any]:
    """A tune.json of three trials."""
    trials = [{"weight": w, "prediction": w, "distribution": 1 - w, "effective_rank": 3.0,
               "seconds": 1.0} for w in (0.01, 1.0, 0.1)]  # fmt: skip
    found = {"weight": 0.3, "low": 0.1, "high": 1.0, "monotone": False}
    config = {"data": name, "preset": name, "steps": 150, name: name}
    return {"config": config, "trials": trials, "result": found}


def demo(name: str) -> dict[str, Any]:
    """A demo's report.json with its ablation."""
    probes = {kind: {"x": 0.9, "y": 0.8} for kind in ("linear", "mlp")}
    part = {"success_rate": 0.5, "probe_r2": probes, "pred_loss": 0.03, "sigreg": 3.0}
    return part | {
        "success_interval": [0.25, 0.75], "same_room_success_rate": None,
        "cross_room_success_rate": 0.5, "cross_room_fraction": 1.0, "random_success_rate": 0.0,
        "episodes": 4, "mean_start_goal_distance": 5.3, "mean_steps_to_goal": 9.0,
        "sigreg_floor": 1.0525, "seed": 0, "config": {"weight": 0.05}, "machine": name,
        "versions": {"sigreg": name, "torch": name}, "wall_seconds": {name: 1.0, "total": 1.0},
        "ablation": part,
    }  # fmt: skip


@functools.cache
def pages(name: str) -> dict[str, str]:
    """Every page, all its texts `name`, and an index of a folder whose files are called so."""
    with tempfile.TemporaryDirectory() as folder:
        return drawn_in(Path(folder), name)


def drawn_in(folder: Path, name: str) -> dict[str, str]:
    """The pages, from files that are written into a folder."""
    Image.new("RGB", (4, 4)).save(folder / "film.gif")
    run = folder / name.replace("/", "")[:80]
    inner = run / f"results{name.replace('/', '')[:80]}"
    inner.mkdir(parents=True)
    for path, content in (
        (inner / "result.json", result(name)),
        (run / "report.json", demo(name)),
        (run / "config.json", {"extra": {"objective": name, "world": name}}),
    ):
        path.write_text(json.dumps(content))  # fmt: skip
    (run / ADDRESS.replace("/", "")).write_text("x")
    Image.new("RGB", (4, 4)).save(run / "curves.png")
    films = {"successes": folder / "film.gif", name: folder / "film.gif"}
    report = study(name)
    curves = training_curves({"step": [1.0, 2.0], "prediction": [2.0, 1.0]}, floor=None)
    return {
        "study": study_page(report),
        "evaluate": render("evaluate.html", result=result(name), films=films),
        "compare": render("compare.html", found=compared(name), names=(name, name)),
        "tune": render("tune.html", tune=tuned(name)),
        "demo": render("demo.html", report=demo(name), film=films["successes"],
                       map=report.parts["map"].shown, curves=curves),
        "index": index_page(run),
    }  # fmt: skip


class Reader(HTMLParser):
    """Tags, handlers and addresses of a page, and the text of its body."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("page", PAGES)
def test_whatever_a_text_holds_it_stays_a_text(page: str) -> None:
    """Scripts, quotes, formulas and template marks in any name, path or field are shown as text."""
    shown = Reader(pages(HOSTILE)[page])
    assert "script" not in shown.tags
    assert shown.handlers == []
    assert shown.tags.count("title") == shown.tags.count("style") == 1
    assert "<script>parent.ran=1<" in shown.text
    for address in shown.addresses:
        assert address.startswith(("data:image/", "data:video/", "data:,", "#", "./")), address
    plain = Reader(pages("name")[page])
    drawn = {"clippath", "defs", "g", "image", "path", "rect", "text", "use"}
    tags, wanted = ([t for t in found.tags if t not in drawn] for found in (shown, plain))
    assert tags == wanted


@pytest.mark.parametrize("name", ["name", HOSTILE, "a" * 300], ids=["plain", "hostile", "long"])
def test_a_phone_shows_every_page_whole(name: str, tmp_path: Path) -> None:
    """At 390 pixels nothing sticks out sideways, however long a name; no foreign script runs."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    held = json.dumps(pages(name)).replace("</", "<\\/")
    # Chromium has a least window width; a frame has none. The title tells what a script measured.
    (tmp_path / "frames.html").write_text(
        '<meta charset="utf-8"><style>iframe{width:390px;height:900px;border:0}</style><script>'
        "onload=async()=>{const found={};for(const [name,page] of Object.entries(" + held + ")){"
        "const f=document.createElement('iframe');f.srcdoc=page;const loaded=new Promise("
        "r=>f.onload=r);document.body.append(f);await loaded;const d=f.contentDocument;"
        "found[name]=[d.documentElement.scrollWidth,[...d.images].filter(i=>!i.naturalWidth).length,"
        "d.querySelectorAll('svg').length]}document.title=JSON.stringify([found,!!window.ran])}"
        "</script>"
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=600,1000",
         f"--user-data-dir={tmp_path}/user", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\[\{[^<]*\])</title>", done.stdout)
    assert title is not None, done.stdout[:2000]
    found, ran = json.loads(title[1])
    assert not ran
    assert set(found) == set(PAGES)
    assert {page: width for page, (width, _, _) in found.items() if width > 390} == {}
    assert {page: broken for page, (_, broken, _) in found.items() if broken} == {}
    assert [found[page][2] for page in PAGES] == [10, 1, 2, 1, 3, 0]


def test_an_evaluation_shows_every_pair_and_who_stood_beside(tmp_path: Path) -> None:
    """A square per pair with its outcome, a row per policy, the historical label and its limits."""
    page = pages("name")["evaluate"]
    assert [page.count(f'<i class="{kind}"') for kind in ("end", "once", "never")] == [1, 1, 2]
    assert page.count("<td>random actions</td>") == 1
    assert "there is none" in page
    assert "the first 4 of 8 pairs" in page
    assert "not drawn by this protocol" in page
    assert "Middle: the goal" in page
    cloned = result("name") | {"protocol": "held-out", "manifest_protocol": "held-out"}
    cloned["fingerprint"] = cloned["fingerprint"] | {"planner": "GCBCPolicy"}
    films = {"successes": tmp_path / "film.gif"}
    Image.new("RGB", (4, 4)).save(films["successes"])
    page = render("evaluate.html", result=cloned, films=films)
    assert "Historical" not in page
    assert "Left: now. Right: the goal." in page
    assert "GCBC of name</h1>" in page


def test_a_study_of_some_parts_has_their_sections_alone() -> None:
    """What was not asked for is not on the page; what could not be measured says why."""
    report = study("name")
    parts = {"probes": Found(unavailable="of tests"), "map": report.parts["map"]}
    some = Found(**vars(report) | {"parts": parts})
    page = study_page(some)
    assert page.count("<section>") == 2
    assert "Not measured: of tests." in page
    assert study_page(report).count("<section>") == 9


def test_an_unfinished_search_has_a_page() -> None:
    """Without a result there is no λ to tell, without a trial no chart."""
    tune = tuned("name")
    assert "change sides more than once" in render("tune.html", tune=tune)
    del tune["result"]
    assert "not finished" in render("tune.html", tune=tune)
    assert "<svg" not in render("tune.html", tune=tune | {"trials": []})


def test_the_index_leads_to_what_lies_there(tmp_path: Path) -> None:
    """Every file but itself has a link that resolves, pages and results first, with their facts."""
    (tmp_path / "results" / "a b").mkdir(parents=True)
    (tmp_path / "cem").mkdir()
    (tmp_path / "cem" / "result.json").write_text(json.dumps(result("name")))
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "view.json").write_text("{}")
    for name in ("study.html", "model.safetensors", "100%?#.txt", ".lock"):
        (tmp_path / name).write_bytes(b"x" * 2048)
    (tmp_path / "report.json").write_text(json.dumps(demo("name")))
    write_index(tmp_path)
    page = (tmp_path / "index.html").read_text()
    links = [a for a in Reader(page).addresses if a.startswith("./")]
    assert links[:3] == ["./study.html", "./view/index.html", "./cem/result.json"]
    assert sorted(links[3:]) == ["./100%25%3F%23.txt", "./model.safetensors", "./report.json",
                                 "./results"]  # fmt: skip
    assert "50.0 % of 4 pairs, name" in page
    assert "2.05 kB" in page
    assert "of goals reached" in page
    (tmp_path / "config.json").write_text('{"extra": []}')
    (tmp_path / os.fsdecode(b"\xff.bin")).write_bytes(b"")
    write_index(tmp_path)
    assert "./%FF.bin" in (tmp_path / "index.html").read_text()
    (tmp_path / "report.json").write_text("{")
    assert "of goals reached" not in index_page(tmp_path)


def test_a_broken_link_is_not_on_the_index(tmp_path: Path) -> None:
    """What a link in a run folder leads to may be gone; the page is made all the same."""
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there.txt").write_text("x")
    page = index_page(tmp_path)
    assert "./there.txt" in page
    assert "gone.txt" not in page


def test_a_terminal_is_told_the_same_figures() -> None:
    """Rates, intervals, tests and notes appear in the lines as they do on the pages."""

    def said(command: str, **found: object) -> list[str]:
        return render(f"{command}.txt", out=Path("there"), **found).splitlines()

    lines = said("evaluate", result=result("name"))
    assert "  HISTORICAL PROTOCOL: for comparison with published tables only; " in lines[1]
    assert "  random actions                50.0 %   25.0 % – 75.0 %         25.0 %" in lines
    assert "  note: the manifest was made with name 1, this evaluation has name name" in lines
    assert "  steps to the goal       never reached" in lines
    assert lines[-1] == "  look at there/index.html; all figures are in there/result.json"
    lines = said("compare", found=compared("name"), names=("one", "two"))
    assert lines[:2] == ["A  one", "B  two"]
    assert "  A 50.0 %   B 75.0 %   B − A +25.0 points" in lines
    assert "  better in A 1, better in B 6, exact test p = 0.12" in lines
    lines = said("demo", report=demo("name"))
    assert "    within a room      none" in lines
    assert "  reached the goal     50.0 %           50.0 %" in lines
    assert said("demo", report={k: v for k, v in demo("name").items() if k != "ablation"})
    lines = said("study", report=study("name"))
    assert "  note: name" in lines
    assert "  name         R²  linear 0.5 (0.25 to 0.75)   MLP 0.5 (0.25 to 0.75)" in lines
    assert "  other: not measured, name" in lines
    assert all("\n" not in line for line in lines)


def test_numbers_are_written_one_way() -> None:
    """Percentages, differences, digits, minus signs, bounds and plurals."""
    assert [percent(0.865), percent(None), percent(0.29, 0)] == ["86.5 %", "none", "29 %"]
    assert [points(0.035), points(-0.1)] == ["+3.5 points", "−10.0 points"]
    assert [number(x) for x in (0.98765, -0.5, 12345.6, 0.0012345, 0.0, float("nan"), None)] == [
        "0.988", "−0.5", "12,346", "0.0012", "0", "–", "–",
    ]  # fmt: skip
    assert interval(Estimate(0.5, float("nan"), float("nan"), 1)) == "0.5 (n = 1, no interval)"
    assert [p_value(0.0), p_value(0.0312)] == ["< 10⁻¹²", "0.031"]
    assert [plural(1, "step"), plural(2000, "step")] == ["1 step", "2,000 steps"]
