"""Does `from_published` give the outputs of the official LeWM?

The script builds the official architecture from its own Hydra configuration with the real
stable_worldmodel, stable_pretraining and transformers, fills it with weights that are a function
of their names (tests/worldmodel/golden/hashed.py; AdaLN gates far from zero), writes a folder as
the official code would, reads it with `worldmodel.from_published`, and compares encode, predict
and rollout.

    nox -s parity              compare, and check that the committed goldens still hold
    nox -s parity -- --write   also write the goldens again

The installed transformers decides which generation of key names is tested: `old` up to 5.8,
`new` later. The session runs this script once with each.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldmodel.published import from_published

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "worldmodel" / "golden"
CASES = ("lewm", "reduced")
PACKAGES = ("stable-worldmodel", "stable-pretraining", "transformers")
TOLERANCE = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WINDOWS, PLANS, STEPS = 2, 2, 5


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


hashed = _module(GOLDEN / "hashed.py")
harness = _module(ROOT / "benchmarks" / "harness.py")


def declare_torchvision() -> torch.library.Library:
    """Let torchvision's CUDA wheel import beside a CPU torch: two operators must have a name."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def official_outputs(model: nn.Module, frames: Tensor, actions: Tensor) -> dict[str, Tensor]:
    """encode, predict and rollout by the official methods."""
    history = frames.shape[1]
    pixels = (frames / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    info = model.encode({"pixels": pixels, "action": actions[:, 0, :history]})
    predicted = model.predict(info["emb"], info["act_emb"])
    faint = model.predict(info["emb"] / 1000, info["act_emb"])
    expanded = pixels[:, None].expand(-1, PLANS, -1, -1, -1, -1)
    rolled = model.rollout({"pixels": expanded}, actions)["predicted_emb"]
    rolled = rolled[:, :, history:]
    return {"z": info["emb"], "predicted": predicted, "faint": faint, "rolled": rolled}


def our_outputs(folder: Path, frames: Tensor, actions: Tensor) -> dict[str, Tensor]:
    """The same by our model, from the folder that the official code wrote."""
    model = from_published(folder)
    z = model.encode(frames)
    past = actions[:, 0, : frames.shape[1]]
    rolled = model.rollout(z.repeat_interleave(PLANS, 0), actions.flatten(0, 1))
    return {
        "z": z,
        "predicted": model.predict(z, past),
        "faint": model.predict(z / 1000, past),
        "rolled": rolled.unflatten(0, (-1, PLANS)),
    }


def listing(state: dict[str, Tensor]) -> str:
    """One line per tensor: name, shape, type."""
    return "".join(f"{n}\t{tuple(v.shape)}\t{v.dtype}\n" for n, v in state.items())


def compare(case: str, *, write: bool) -> list[dict[str, Any]]:
    """Compare one configuration; SystemExit where 1e-5, a golden or a key does not hold."""
    from hydra.utils import instantiate

    folder = GOLDEN / case
    config = json.loads((folder / "config.json").read_text())
    model = instantiate(config).eval()
    keys = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    generation = "old" if any(n.startswith("encoder.encoder.layer.") for n in keys) else "new"
    model.load_state_dict(hashed.state_dict(keys))
    history = config["predictor"]["num_frames"]
    frames = hashed.frames(WINDOWS, history, config["encoder"]["image_size"])
    width = config["action_encoder"]["input_dim"]
    actions = hashed.actions(WINDOWS, PLANS, history - 1 + STEPS, width)
    with torch.inference_mode():
        theirs = official_outputs(model, frames, actions)
        with tempfile.TemporaryDirectory() as name:
            torch.save(model.state_dict(), Path(name) / "weights.pt")
            (Path(name) / "config.json").write_text(json.dumps(config))
            ours = our_outputs(Path(name), frames, actions)
    listed = folder / f"keys_{generation}.txt"
    outputs = folder / f"outputs_{generation}.safetensors"
    if write:
        listed.write_text(listing(model.state_dict()))
        save_file({k: v.contiguous() for k, v in theirs.items()}, outputs)
    if listed.read_text() != listing(model.state_dict()):
        raise SystemExit(f"{listed} does not list the official tensors")
    golden = load_file(outputs)
    records = []
    for name, value in theirs.items():
        record = {
            "case": case,
            "keys": generation,
            "tensors": len(keys),
            "output": name,
            "largest_value": value.abs().max().item(),
            "error": (value - ours[name]).abs().max().item(),
            "golden_drift": (value - golden[name]).abs().max().item(),
        }
        if not max(record["error"], record["golden_drift"]) < TOLERANCE:
            raise SystemExit(f"difference of {TOLERANCE} or more: {record}")
        records.append(record)
    return records


def main() -> None:
    """Both configurations with the installed transformers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the golden files again")
    arguments = parser.parse_args()
    library = declare_torchvision()
    results = [r for case in CASES for r in compare(case, write=arguments.write)]
    del library
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    harness.save(
        f"parity_{results[0]['keys']}",
        "Largest difference between the official LeWM and from_published, same weights and inputs",
        results,
        columns=("model", "output", "largest value", "largest difference"),
        rows=[
            (r["case"], r["output"], f"{r['largest_value']:.2f}", f"{r['error']:.1e}")
            for r in results
        ],
        note=f"{versions}; float32 on the CPU.",
    )


if __name__ == "__main__":
    main()
