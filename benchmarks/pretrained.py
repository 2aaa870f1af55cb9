"""Make, ship and evaluate the runs in `pretrained/`, with the commands.

    python benchmarks/pretrained.py two-room      collect, train three seeds, ship, evaluate
    python benchmarks/pretrained.py --tables      only the table and the cards

Each step writes a file into --runs and is skipped if that file exists, so you can interrupt the
script at any time. Planner settings are chosen on validation pairs. The figures come from other
pairs, of fresh episodes. The first seed is shipped, with weights in half precision.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import harness
from bench_small_worlds import worldmodel

from worldmodel import from_pretrained, read_config, save
from worldmodel._files import write_atomically
from worldmodel.apps.parsing import complete
from worldmodel.apps.runs import LEARNER, METRIC, RECORDED, read_episodes, write_episodes
from worldmodel.apps.settings import EvaluateSettings
from worldmodel.checkpoint import as_bytes, notes_of, read_weights

SHIPPED = harness.ROOT / "pretrained"
SEEDS = (0, 1, 2)
VALIDATION, TEST = 101, 202  # seeds of the pairs
KEEP = 16  # of the recorded episodes that proposals are drawn from, one in so many is shipped


class Recipe(NamedTuple):
    """The settings of a run; others are the command's defaults."""

    env: str
    collect: str
    train: str
    fresh: str | None  #: how the episodes of the pairs are collected; None: as manifest does
    planners: tuple[str, ...]  #: tried on the validation pairs; the best is kept with the run
    offsets: tuple[int, ...]  #: steps from start to goal; the planner is chosen at the last
    about: str  #: limits, for the card
    predictor: str | None = None  #: settings of a second training, of the predictor alone
    learner: str | None = None  #: settings of a learner of proposals on the finished model


_PROPOSED = "--planner proposals --check 1000 --samples 16 --iterations 3 --metric mahalanobis"
RECIPES = {
    "two-room": Recipe(
        "two-room", "--episodes 800 --length 80 --bump 0.4", "--steps 600", None,
        (
            "--planner icem --cost mean", "--planner icem --horizon 7 --iterations 4 --cost mean",
            "--planner cem --cost mean", "--planner cem", "--planner proposals",
        ),
        (25,),
        "For goals further away see docs/far-goals.md.",
        learner="--learner gcivl",
    ),
    "reacher": Recipe(
        "reacher", "--policy random --episodes 512 --length 125",
        "--steps 5000 terms.inverse=0.6",
        "--policy random --states-only --episodes 400 --length 125",
        (
            "--planner icem --cost mean", "--planner cem --cost mean", "--planner cem --free",
            "--planner cem",
        ),
        (25,),
        "Both joints must come within 0.05 rad of their goals.",
    ),
    "push-t": Recipe(
        "push-t", "--policy pusher-varied --states-only --episodes 4000 --length 125",
        "--preset mlp --render 64 --moving 0.8 --moving-states 2 3 4 --steps 9000 --held-out 0.05",
        "--policy pusher --states-only --episodes 400 --length 125",
        (
            "--planner cem --free --std 0.7",
            "--planner cem --free --std 0.7 --metric mahalanobis",
        ),
        (10, 25),
        "Goals 25 steps away ask for several pushes.",
        "--steps 6000 --learning-rate 5e-4",
    ),
    "cube": Recipe(
        "cube", "--policy picker --episodes 1500 --length 200 --seed 7",
        "--preset mlp --moving 0.5 --moving-states 14 15 16 --steps 5000 --held-out 0.05",
        "--policy picker --states-only --episodes 300 --length 200",
        (
            "--planner cem --metric mahalanobis", f"{_PROPOSED} --sources policy",
            f"{_PROPOSED} --sources policy recorded",
        ),
        (25,),
        "The cube must come within 4 cm of its goal, wherever the arm is. Many goals lie somewhat "
        "beyond the planner's five blocks, of which `evaluate` warns.",
        learner="--learner gcivl",
    ),
}  # fmt: skip


def main() -> int:
    """Run the unfinished steps, then write the table and the cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(RECIPES)}; none: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="training seeds, from 0 on")
    parser.add_argument("--tables", action="store_true", help="only the table and the cards")
    arguments = parser.parse_args()
    for name in () if arguments.tables else arguments.name or RECIPES:
        make(name, arguments.runs / name, SEEDS[: arguments.seeds])
    table(arguments.runs)
    choices(arguments.runs)
    return 0


def make(name: str, runs: Path, seeds: tuple[int, ...]) -> None:
    """Collect, train, ship, choose the planner, evaluate; finished steps are skipped."""
    recipe, data = RECIPES[name], runs / "data.h5"
    runs.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        worldmodel("data", "collect", "--env", recipe.env, *recipe.collect.split(), "--out", data)
    for seed in seeds:
        run = runs / f"seed-{seed}"
        finish(run, "--data", data, *recipe.train.split(), "--seed", seed)
        if recipe.predictor is not None:
            before, run = run, runs / f"tuned-{seed}"
            words = ("--config", before / "train.json", "--init-from", before)
            finish(run, *words, "--objective", "predictor", *recipe.predictor.split())
        if recipe.learner is not None:
            # The learner belongs to the rounded weights, which are shipped.
            rounded = runs / f"rounded-{seed}"
            if not rounded.exists():
                halve(run, rounded)
            run = runs / f"learned-{seed}"
            words = ("--data", data, "--init-from", rounded, "--objective", "proposals")
            finish(run, *words, *recipe.learner.split())
        if not (runs / f"half-{seed}").exists():
            halve(run, runs / f"half-{seed}")
    draw_pairs(recipe, runs)
    far, rates = recipe.offsets[-1], dict[Path, float]()
    for n, flags in enumerate(recipe.planners):
        own = runs / f"half-0-{n}"
        shutil.copytree(runs / "half-0", own, dirs_exist_ok=True)
        found = judge(own, runs / f"{VALIDATION}-{far}.json", f"{flags} --keep-planner")
        rates[own] = found["success_rate_at_end"]
    best = max(rates, key=rates.__getitem__)
    for seed in seeds:
        shutil.copy(best / "planner.json", runs / f"half-{seed}")
        for offset in recipe.offsets:
            judge(runs / f"half-{seed}", runs / f"{TEST}-{offset}.json", "")
    shutil.copytree(runs / "half-0", SHIPPED / name, dirs_exist_ok=True)


def finish(run: Path, *words: object) -> None:
    """Train a run to its end, if it is not there."""
    if not (run / "report.json").exists():
        begun = (run / "train.json").exists()
        worldmodel("train", "--out", run, *(("--resume",) if begun else words))


def minutes(runs: Path, seed: int) -> float:
    """How long all trainings of a seed took."""
    kinds = ("seed", "tuned", "learned")
    reports = (runs / f"{kind}-{seed}" / "report.json" for kind in kinds)
    return sum(json.loads(path.read_text(encoding="utf-8"))["wall_seconds"] / 60
               for path in reports if path.exists())  # fmt: skip


def draw_pairs(recipe: Recipe, runs: Path) -> None:
    """The manifests, of fresh episodes."""
    for draw in (VALIDATION, TEST):
        fresh = runs / f"{draw}.h5"
        source = () if recipe.fresh is None else ("--data", fresh)
        if recipe.fresh is not None and not fresh.exists():
            worldmodel("data", "collect", "--env", recipe.env, *recipe.fresh.split(),
                           "--seed", draw, "--out", fresh)  # fmt: skip
        for offset in recipe.offsets:
            pairs = runs / f"{draw}-{offset}.json"
            if not pairs.exists():
                task = ("--pairs", 200, "--offset", offset, "--budget", 2 * offset, "--seed", draw)
                worldmodel("manifest", "--env", recipe.env, *task, *source, "--out", pairs)


def halve(run: Path, folder: Path) -> None:
    """Ship a run: weights in half precision, no paths of this machine."""
    config, names = read_config(run), read_episodes(run)
    settings = config.extra["settings"] | {"data": None, "init_from": None}
    extra = config.extra | {"settings": settings, "data": None}
    save(from_pretrained(run).half(), folder, action_scale=config.action_scale, extra=extra)
    write_episodes(folder, names.train, names.held_out)
    if (run / METRIC).exists():
        shutil.copy(run / METRIC, folder)
    for name in (LEARNER, RECORDED):
        if (run / name).exists():
            parts = {key: part.half() if part.is_floating_point() else part
                     for key, part in read_weights(run / name).items()}  # fmt: skip
            if name == RECORDED:
                parts = {key: part[::KEEP] for key, part in parts.items()}
            told = {"learner": notes_of(run / name).get("learner", "null")}
            write_atomically(folder / name, as_bytes(parts, told)[0])


def judge(run: Path, pairs: Path, flags: str) -> dict[str, Any]:
    """The result of a run on a manifest."""
    out = run.with_name(f"{run.name}-on-{pairs.stem}")
    if not (out / "result.json").exists():
        worldmodel("evaluate", run, "--manifest", pairs, *flags.split(), "--out", out)
    found: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return found


def table(runs: Path) -> None:
    """The mean over the seeds that were tried, for each distance; and each run's card.

    What an earlier call measured stays where `runs` holds nothing newer, with the same planner.
    """
    rows, records = list[list[harness.Cell]](), list[dict[str, Any]]()
    before = json.loads((harness.RESULTS / "pretrained.json").read_text(encoding="utf-8"))
    known = {(one["fingerprint"]["run"], one["offset"], one["seed"]): one
             for one in before["results"]}  # fmt: skip
    for name, recipe in RECIPES.items():
        mine = list[list[harness.Cell]]()
        for offset in recipe.offsets:
            found = list[dict[str, Any]]()
            for seed in SEEDS:
                path = runs / name / f"half-{seed}-on-{TEST}-{offset}" / "result.json"
                if path.exists():
                    found.append(json.loads(path.read_text(encoding="utf-8")))
                    del found[-1]["outcomes"]
                    found[-1]["fingerprint"]["run"] = name
                    took = round(minutes(runs / name, seed), 1)
                    found[-1] |= {"seed": seed, "training_minutes": took}
                elif (old := known.get((name, offset, seed))) and (
                    not found or planner_of(old) == planner_of(found[0])
                ):
                    found.append(old)
            if len({record["manifest_hash"] for record in found}) > 1:
                raise ValueError(f"seeds of {name} must be judged on the same pairs, {offset} away")
            if not found:
                continue
            records += found
            first, every = found[0], [record["success_rate"] for record in found]
            low, high = first["success_interval"]
            mine.append([
                name, offset, f"{mean(every):.1%}", ", ".join(f"{rate:.1%}" for rate in every),
                f"{mean(record['success_rate_at_end'] for record in found):.1%}",
                f"{low:.1%} – {high:.1%}", f"{first['random_success_rate']:.1%}",
                f"{first['expert_success_rate']:.1%}",
                ", ".join(f"{x:.0f}" for one in found if (x := one["training_minutes"])),
            ])  # fmt: skip
        rows += mine
    harness.save(
        "pretrained", "The runs in `pretrained/`, on pairs that nobody has seen", records,
        columns=COLUMNS, rows=rows,
        note="Starts and goals of fresh episodes, solved pairs dropped, budget twice the distance; "
        "the planner's settings were chosen on other pairs. Success at any step of the budget, of "
        "each training seed; the interval is that of the shipped one. Each record of the file "
        "names the commit and the machine that measured it.",
    )  # fmt: skip
    for name, recipe in RECIPES.items():  # last: a changed card would make the commit dirty
        if (SHIPPED / name).exists():
            card(name, recipe, [row for row in rows if row[0] == name])


def planner_of(record: dict[str, Any]) -> dict[str, Any]:
    """The planner's settings in a result; older ones have no metric."""
    return {"metric": "euclidean"} | record["fingerprint"]["planner"]


def choices(runs: Path) -> None:
    """Table of the planners that were tried on the validation pairs; earlier rows stay."""
    rows, records = list[list[harness.Cell]](), list[dict[str, Any]]()
    before = json.loads((harness.RESULTS / "pretrained_planners.json").read_text(encoding="utf-8"))
    for name, recipe in RECIPES.items():
        pairs = f"{VALIDATION}-{recipe.offsets[-1]}"
        paths = [runs / name / f"half-0-{n}-on-{pairs}" / "result.json"
                 for n in range(len(recipe.planners))]  # fmt: skip
        if not any(path.exists() for path in paths):
            rows += [row for row in before["table"]["rows"] if row[0] == name]
            records += [record for record in before["results"] if record["run"] == name]
        for flags, path in zip(recipe.planners, paths, strict=True):
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                any_step, end = found["success_rate"], found["success_rate_at_end"]
                rows.append([name, flags, f"{any_step:.1%}", f"{end:.1%}"])
                records.append({"run": name, "flags": flags, "success_rate": any_step,
                                "success_rate_at_end": end, "pairs": found["pairs"],
                                "manifest": found["manifest_hash"]})  # fmt: skip
    harness.save(
        "pretrained_planners", "Planners tried with the first seed, on validation pairs", records,
        columns=("run", "flags of worldmodel evaluate", "success at any step", "at the end"),
        rows=rows,
        note=f"{records[0]['pairs']} pairs, 25 steps to the goal, 50 steps allowed. The planner "
        "with the best rate at the end is kept with the run.",
    )  # fmt: skip


COLUMNS = ("run", "steps to the goal", "mean success", "of each training seed", "mean at the end",
           "95 % interval of the first seed", "random", "scripted expert",
           "minutes of training")  # fmt: skip


def card(name: str, recipe: Recipe, rows: list[list[harness.Cell]]) -> None:
    """README.md of a shipped run, in the form that the Hugging Face hub shows."""
    planner = json.loads((SHIPPED / name / "planner.json").read_text(encoding="utf-8"))
    told = {"run": name, "manifest": name, "out": name, "planner": planner["settings"]["planner"]}
    usual = complete(EvaluateSettings, "evaluate", told).model_dump(mode="json")
    usual["planner"] = "cem"
    own = {key: value for key, value in planner["settings"].items() if value != usual[key]}
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in ([*COLUMNS], *rows)]
    lines.insert(1, "| --- " * len(COLUMNS) + "|")
    again = ""
    if recipe.predictor is not None:
        words = f"--init-from run --objective predictor {recipe.predictor} --out run-2"
        again = f"$ worldmodel train --config run/train.json {words}\n"
    if recipe.learner is not None:
        words = f"--init-from run --objective proposals {recipe.learner} --out run-2"
        again = f"$ worldmodel train --data data.h5 {words}\n"
    text = CARD.format(
        name=name, lines="\n".join(lines), about=recipe.about, collect=recipe.collect,
        train=recipe.train, env=recipe.env, predictor=again,
        planner=", ".join(f"{key} {value}" for key, value in own.items()) or "nothing",
    )  # fmt: skip
    (SHIPPED / name / "README.md").write_text(text, encoding="utf-8")


CARD = """\
---
license: apache-2.0
library_name: sigreg
---

# {name}

A world model of {env}, trained from pixels with the commands below. Load it with
`worldmodel.from_pretrained("pretrained/{name}")`; the weights are stored in half precision.

{lines}

Pairs of start and goal are of fresh episodes that no run has seen; pairs that are solved at the
start are dropped; the budget is twice the distance. Mean success counts at any step. {about}
It knows this world's pictures at 64 pixels and no others.

```console
$ worldmodel data collect --env {env} {collect} --out data.h5
$ worldmodel train --data data.h5 {train} --out run
{predictor}$ python benchmarks/pretrained.py {name}    # all steps, and the evaluation
```

`worldmodel evaluate` plans with the settings of `planner.json`, which were chosen on validation
pairs. They differ from the defaults in: {planner}.
"""


if __name__ == "__main__":
    sys.exit(main())
