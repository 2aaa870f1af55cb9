"""Evaluate and compare, in code and on the command line: what is refused, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel import presets
from worldmodel.apps.cli import main
from worldmodel.apps.evaluate import Actor, ExpertPolicy, Planner, RandomPolicy, Task
from worldmodel.apps.evaluate.comparing import compare
from worldmodel.apps.evaluate.manifest import Manifest, read_manifest
from worldmodel.apps.evaluate.results import outcomes, seeds_of, summary, try_policy
from worldmodel.apps.evaluate.running import Evaluation, evaluate
from worldmodel.apps.evaluate.wording import result_lines
from worldmodel.apps.runs import Run, open_run, save_run
from worldmodel.data import ActionScale, HDF5Writer, action_digest
from worldmodel.worlds import TwoRoom, collect

SEARCH = ["--samples", "6", "--elites", "3", "--iterations", "2", "--horizon", "2"]
TINY = Planner(samples=6, elites=3, iterations=2, horizon=2)


def save(folder: Path, **words: Any) -> Path:
    """An untrained run for Two-Room at 16 pixels."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"world": "two-room", "trained_on": ["a"]} | words
    save_run(
        presets.small(2 * 3, image_size=16, dim=8), folder,
        scale=ActionScale(torch.zeros(2), torch.full((2,), 0.6)), frameskip=3, held_out=[],
        settings={}, **settings,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a manifest of eight pairs with a budget of seven steps."""
    out = tmp_path_factory.mktemp("control")
    save(out / "run")
    words = ["--pairs", "8", "--offset", "6", "--budget", "7", "--out", str(out / "m.json")]
    assert main(["manifest", "--env", "two-room", *words]) == 0
    return out


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """The run, read."""
    return open_run(folder / "run")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    """The manifest, read."""
    return read_manifest(folder / "m.json")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The single error line of a command that must end with status 2."""
    assert main(list(words)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    return line


def test_neither_batch_size_nor_order_changes_an_outcome(run: Run, manifest: Manifest) -> None:
    """The same records come from one pair at a time, three at a time, and all together."""
    results = [
        evaluate(run, manifest, Evaluation(TINY, batch_size=size, repeats=2))[0]
        for size in (1, 3, 8)
    ]
    for result in results[1:]:
        assert result["outcomes"] == results[0]["outcomes"]
        assert result["random_success_rate"] == results[0]["random_success_rate"]
    order = np.asarray([5, 0, 7, 2, 1, 4, 3, 6])
    mixed = manifest._replace(pairs=manifest.pairs.take(order), seeds=manifest.seeds[order])
    found = evaluate(run, mixed, Evaluation(TINY))[0]["outcomes"]
    for record in found:
        first = results[0]["outcomes"][order[record["pair"]]]
        assert record | {"pair": first["pair"]} == first


def test_repeats_have_seeds_of_their_own(manifest: Manifest) -> None:
    """No two repeats of a pair, and no two pairs, share a stream."""
    seeds = np.stack([seeds_of(manifest, k) for k in range(4)])
    assert len(np.unique(seeds)) == seeds.size
    assert seeds.min() >= 0


def test_rates_are_those_of_the_outcomes(manifest: Manifest) -> None:
    """Success, success at the end and by repeat are the shares of the records."""
    trials = try_policy(TwoRoom(16), manifest, RandomPolicy(), repeats=3)
    records, found = outcomes(trials), summary(trials)
    assert len(records) == 3 * 8
    flags = [record["success"] for record in records]
    assert found["success_rate"] == pytest.approx(np.mean(flags), abs=1e-4)
    end = np.mean([record["success_at_end"] for record in records])
    assert found["success_rate_at_end"] == pytest.approx(end, abs=1e-4)
    assert found["success_rate_by_repeat"] == pytest.approx(
        [np.mean(flags[k * 8 : k * 8 + 8]) for k in range(3)], abs=1e-4
    )
    low, high = found["success_interval"]
    assert low <= found["success_rate"] <= high
    assert all((record["steps"] is not None) == record["success"] for record in records)


def test_repeats_do_not_narrow_the_interval(manifest: Manifest) -> None:
    """The same pair tried twice is one pair: a policy without chance gains nothing by it."""
    world = TwoRoom(16)
    once = summary(try_policy(world, manifest, ExpertPolicy()))
    twice = summary(try_policy(world, manifest, ExpertPolicy(), repeats=2))
    assert once["success_interval"] == twice["success_interval"]


def test_any_policy_can_be_evaluated_beside_a_run(run: Run, manifest: Manifest) -> None:
    """What is measured is the policy given; the fingerprint names it."""

    class Straight:
        def begin(self, task: Task) -> Actor:
            act = task.world.expert(task.goals)
            assert act is not None
            return lambda scene: act(scene.states)[:, None]

    result, _ = evaluate(run, manifest, Evaluation(TINY), policy=Straight())
    assert result["success_rate"] == result["expert_success_rate"]
    assert result["fingerprint"]["planner"] == "Straight"


def test_the_result_holds_all_that_is_promised(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command leaves every figure, floor, record and fingerprint, and prints a table."""
    out = tmp_path / "out"
    words = [str(folder / "run"), "--manifest", str(folder / "m.json"), "--out", str(out)]
    assert main(["evaluate", *words, *SEARCH, "--batch-size", "3"]) == 0
    text = capsys.readouterr().out
    for part in ("cem", "random actions", "no action", "scripted expert", "95 % interval"):
        assert part in text
    result = json.loads((out / "result.json").read_text())
    assert len(result["outcomes"]) == result["pairs"] == 8
    for kind in ("", "random_", "noop_", "expert_"):
        low, high = result[f"{kind}success_interval"]
        assert low <= result[f"{kind}success_rate"] <= high
    assert result["noop_success_rate"] == 0
    assert result["protocol"] == "held-out"
    assert result["planning_seconds"]["median"] <= result["planning_seconds"]["p95"]
    mark = result["fingerprint"]
    assert mark["planner"]["name"] == "cem"
    assert mark["rollouts_per_decision"] == 12
    assert mark["versions"]["torch"] == torch.__version__
    assert mark["world_versions"]["rendering"] == "numpy"
    assert len(mark["weights"]) == len(result["manifest_hash"]) == 64
    line = refused(capsys, "evaluate", *words, *SEARCH)
    told = f"--out must not hold a result yet, got {out}: choose another folder"
    assert line == f"worldmodel evaluate: error: {told}"


def test_a_kill_while_films_are_made_loses_no_result(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The result is whole before the first picture of it; the same command makes the pictures."""

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    command, out = "worldmodel.apps.evaluate.command", tmp_path / "out"
    words = [str(folder / "run"), "--manifest", str(folder / "m.json"), "--out", str(out), *SEARCH]
    monkeypatch.setattr(f"{command}.film_attempts", killed)
    assert main(["evaluate", *words]) == 130
    assert [path.name for path in out.iterdir()] == ["result.json"]
    written = (out / "result.json").read_bytes()
    assert len(json.loads(written)["outcomes"]) == 8
    monkeypatch.undo()
    for other, name in ((["--cost", "last"], "planner"), (["--seeds", "2"], "seeds")):
        assert refused(capsys, "evaluate", *words, *other).endswith(f"has other {name}")
    monkeypatch.setattr(f"{command}.evaluate", killed)
    assert main(["evaluate", *words]) == 0
    assert (out / "result.json").read_bytes() == written
    reached = [one["success"] for one in json.loads(written)["outcomes"]]
    films = {name for name, kind in (("successes", True), ("failures", False)) if kind in reached}
    assert {p.name for p in out.glob("*.gif")} == {f"{name}.gif" for name in films}
    assert (out / "index.html").exists()
    assert "must not hold a result yet" in refused(capsys, "evaluate", *words)


def test_a_setting_that_the_planner_lacks_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would decide nothing, and the result would say otherwise."""
    words = [str(folder / "run"), "--manifest", str(folder / "m.json"), "--out", str(tmp_path)]
    for given, message in (
        (
            ["--planner", "gradient", "--elites", "4"],
            "--elites is a setting of cem, icem, mppi, got",
        ),
        (["--temperature", "2"], "--temperature is a setting of mppi, got it with --planner cem"),
        (["--planner", "mppi", "--rate", "0.5"], "--rate is a setting of gradient, got it with"),
    ):
        assert message in refused(capsys, "evaluate", *words, *given)


def test_weights_of_another_world_or_width_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    """The message says what the run is of and what the manifest needs."""
    other = open_run(save(tmp_path / "other", world="push-t"))
    with pytest.raises(ValueError, match="trained on push-t, the manifest is of two-room"):
        evaluate(other, manifest, Evaluation(TINY))
    wide = open_run(save(tmp_path / "unknown", world=None))._replace(frameskip=2)
    with pytest.raises(ValueError, match=r"must take 2 × 2 action dims of two-room, it takes 6"):
        evaluate(wide, manifest, Evaluation(TINY))


def test_training_episodes_are_refused_unless_history_asks(run: Run, manifest: Manifest) -> None:
    """One shared episode is enough; the historical protocol allows it and says so."""
    seen = run._replace(trained_on=frozenset(manifest.digests[:1]))
    with pytest.raises(ValueError, match=r"trained on 1 of the \d episodes that the manifest"):
        evaluate(seen, manifest, Evaluation(TINY))
    result, _ = evaluate(seen, manifest, Evaluation(TINY, "historical"))
    assert result["protocol"] == "historical"
    (label,) = (line for line in result_lines(result, Path()) if "HISTORICAL" in line)
    assert "fewer than its 50 pairs; not drawn by it: pairs that were solved" in label
    old = manifest._replace(protocol="historical")
    with pytest.raises(ValueError, match="drawn by the historical protocol"):
        evaluate(run, old, Evaluation(TINY))


def test_the_historical_protocol_counts_fifty_pairs(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of sixty pairs it takes the first fifty, and the table is labelled."""
    words = ["--pairs", "60", "--offset", "6", "--budget", "3", "--protocol", "historical"]
    path = tmp_path / "old.json"
    assert main(["manifest", "--env", "two-room", *words, "--out", str(path)]) == 0
    words = ["--manifest", str(path), "--protocol", "historical", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(folder / "run"), *words, *SEARCH]) == 0
    label = (
        "HISTORICAL PROTOCOL: for comparison with published tables only; the first 50 of 60 pairs"
    )
    assert f"  {label}\n" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["pairs"] == 50


def test_a_manifest_of_a_data_set_leaves_out_what_a_run_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four episodes two were trained on: pairs come from the other two."""
    pytest.importorskip("h5py")
    world = TwoRoom(16)
    walks = collect(world, 4, 12, seed=5)
    with HDF5Writer(tmp_path / "walks.h5") as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    names = [action_digest(actions) for actions in walks.actions]
    save(tmp_path / "run", trained_on=names[:2])
    words = ["manifest", "--env", "two-room", "--offset", "6", "--data", str(tmp_path / "walks.h5"),
             "--out", str(tmp_path / "m.json"), "--pairs"]  # fmt: skip
    assert main([*words, "6", "--unseen-by", str(tmp_path / "run")]) == 0
    manifest = read_manifest(tmp_path / "m.json")
    assert set(manifest.digests) <= set(names[2:])
    assert manifest.source == "2 of 4 episodes of walks.h5"
    save(tmp_path / "all", trained_on=names)
    line = refused(capsys, *words, "6", "--unseen-by", str(tmp_path / "all"))
    assert "every episode of" in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--env", "reacher"], "reacher needs"),
        (["--env", "two-room", "--state", "x"], "--unseen-by and --state go with --data"),
        (["--env", "two-room", "--pairs", "3", "--data", "no.h5"], "there is no data set at no.h5"),
    ],
)
def test_a_manifest_that_cannot_be_made_says_why(
    words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the option or the file."""
    assert part in refused(capsys, "manifest", *words, "--out", str(tmp_path / "m.json"))


def result_of(flags: list[int], **words: Any) -> dict[str, Any]:
    """A result with these successes, one record a pair."""
    records = [{"pair": n, "repeat": 0, "success": bool(f), "success_at_end": False}
               for n, f in enumerate(flags)]  # fmt: skip
    return {"manifest_hash": "f" * 64, "protocol": "held-out", "outcomes": records} | words


def test_comparing_counts_the_pairs_on_which_two_results_differ() -> None:
    """Seven pairs won, one lost: the difference is 6/20 and the p-value that of eight coins."""
    a, b = [0] * 7 + [1] + [1] * 12, [1] * 7 + [0] + [1] * 12
    found = compare(result_of(a), result_of(b))
    part = found["success"]
    assert (part["only_b_better"], part["only_a_better"], part["pairs"]) == (7, 1, 20)
    assert part["difference"] == pytest.approx(0.3)
    assert part["p_value"] == pytest.approx(18 / 256)
    assert found["success_at_end"]["p_value"] == 1
    back = compare(result_of(b), result_of(a))["success"]
    assert back["difference"] == pytest.approx(-0.3)
    assert back["p_value"] == part["p_value"]


def test_what_differs_in_more_than_the_policy_is_not_compared() -> None:
    """Other manifests, protocols or pairs are refused by name."""
    a = result_of([0, 1])
    with pytest.raises(ValueError, match=r"must be of one manifest, got ffffffffffff… and 0000"):
        compare(a, result_of([0, 1], manifest_hash="0" * 64))
    with pytest.raises(ValueError, match="must be of one protocol, got held-out and historical"):
        compare(a, result_of([0, 1], protocol="historical"))
    with pytest.raises(ValueError, match="must hold the same pairs, got 2 and 3"):
        compare(a, result_of([0, 1, 1]))


def test_comparing_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders and files are read alike; what is no result is named."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps(result_of([0, 0, 0])))
    (tmp_path / "b.json").write_text(json.dumps(result_of([1, 1, 0])))
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b.json")]
    assert main([*words, "--out", str(tmp_path / "c.json")]) == 0
    assert "B − A +66.7 points" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["success"]["p_value"] == 0.5
    for text, part in (("{", "is no result: "), ("{}", "is no result of `worldmodel evaluate`")):
        (tmp_path / "b.json").write_text(text)
        assert part in refused(capsys, *words)
    assert "there is no result at" in refused(capsys, "compare", str(tmp_path), words[1])


def test_a_planner_with_other_settings_has_another_fingerprint(
    run: Run, manifest: Manifest
) -> None:
    """What was changed on the command line is what the result says."""
    one, two = (
        evaluate(run, manifest, Evaluation(planner))[0]["fingerprint"]
        for planner in (TINY, replace(TINY, cost="last"))
    )
    assert one["weights"] == two["weights"]
    assert (one["planner"]["cost"], two["planner"]["cost"]) == ("nearest", "last")
