"""How long does a plan take in a browser, and until when is the page usable?

Needs chromium, playwright and onnxruntime-web (npm). `chrt -f 1 python benchmarks/bench_view.py`
makes other programs wait.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import harness
import torch
from playwright.sync_api import sync_playwright
from torch import Tensor, nn

from worldmodel import WorldModel, presets
from worldmodel.apps.runs import save_run
from worldmodel.apps.settings import ViewSettings
from worldmodel.apps.view import command
from worldmodel.apps.view.graphs import write_graphs
from worldmodel.data import ActionScale
from worldmodel.heads import Head

HORIZON, SAMPLES, ITERATIONS, ROUNDS, LOADS = 5, 64, 6, 15, 5

# A plan of each model in turn, so that a drift of the machine falls on both.
MEASURE = """async ({ rounds, settings }) => {
  const { Brain } = await import("./brain.js");
  const told = await (await fetch("view.json")).json(), brain = new Brain();
  const { threads } = await brain.ask("load", { about: told, threads: 1 });
  const frame = new Uint8Array(3 * told.world.size ** 2).map((_, i) => i * 31), found = [];
  for (let i = -3; i < rounds; i++) {
    const both = [];
    for (const model of [0, 1]) {
      const goal = await brain.ask("encode", { model, frames: frame.map((v) => 255 - v) });
      const asked = { model, name: `of ${model}`, frame, goal, settings, seed: i + 9, quiet: true };
      both.push((await brain.ask("plan", asked)).ms);
    }
    if (i >= 0) found.push(both);
  }
  brain.worker.terminate();
  return { threads, found };
}"""


class Plainly(nn.Module):
    """A predictor whose export is its plain rollout, not the form for browsers."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor
        self.dim, self.history = predictor.dim, predictor.history

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """As the predictor."""
        return self.predictor(z, actions)


def site(home: Path) -> Path:
    """The page of the demo's model with fresh weights; a second model is rolled out plainly."""
    torch.manual_seed(0)
    model = presets.small(10).eval()
    save_run(
        model, home / "run", scale=ActionScale(torch.zeros(2), torch.ones(2)), frameskip=5,
        world="two-room", trained_on=[], held_out=[], settings={},
    )  # fmt: skip
    command._HORIZONS = [HORIZON]
    out = home / "site"
    command.write(ViewSettings(run=home / "run", episodes=20, pairs=0), out)
    plain = WorldModel(model.encoder, model.action_encoder, Plainly(model.predictor))
    (out / "plain").mkdir()
    write_graphs(plain, Head(model.encoder.dim, 2).requires_grad_(False), out / "plain", [HORIZON])
    told = json.loads((out / "view.json").read_text())
    told["models"].append(told["models"][0] | {"folder": "plain"})
    (out / "view.json").write_text(json.dumps(told))
    return out


def main() -> None:
    """Measure plans of both models, and loads of the page."""
    settings = {
        "horizon": HORIZON, "samples": SAMPLES, "iterations": ITERATIONS, "elites": 8,
        "cost": "nearest", "planner": "cem",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as home, sync_playwright() as p:
        folder = site(Path(home))
        handler = partial(command._Handler, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        ready = []
        for _ in range(LOADS):
            context = browser.new_context()
            page = context.new_page()
            page.goto(address)
            page.evaluate("window.viewer.ready")
            ready.append(page.evaluate("window.viewer.readyMs"))
            context.close()
        page = browser.new_page()
        # An empty page: the real one would plan at the same time.
        page.goto(f"{address}package.json")
        measured = page.evaluate(MEASURE, {"rounds": ROUNDS, "settings": settings})
        version = browser.version
        browser.close()
        server.shutdown()
    quick, plain = (sorted(values) for values in zip(*measured["found"], strict=True))
    ratio = statistics.median(b / a for a, b in measured["found"])

    def row(what: str, values: list[float], note: str) -> list[str]:
        spread = f"{min(values):.0f} … {max(values):.0f}"
        return [what, f"{statistics.median(values):.0f}", spread, note]

    searched = f"{SAMPLES} candidates × {ITERATIONS} iterations × {HORIZON} blocks, the frame too"
    harness.save(
        "view",
        "How long does a plan take in a browser, and until when is the page usable?",
        [{"plan_ms": quick, "plain_ms": plain, "plain_over_quick": ratio, "ready_ms": ready}],
        columns=("what", "ms, median", "least … most", "how"),
        rows=[
            row("plan, predictor written out", quick, searched),
            row("plan, plain rollout exported", plain, f"{ratio:.1f} × as long, round by round"),
            row("until the page is usable", ready, "a fresh context, files from this machine"),
        ],
        note=f"Headless Chromium {version}, WASM with SIMD, one thread; the model of the demo.",
    )


if __name__ == "__main__":
    main()
