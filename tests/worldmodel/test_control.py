"""Evaluate and compare, in code and on the command line: what is refused, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel import presets
from worldmodel.apps.cli import main
from worldmodel.apps.evaluate import RandomPolicy, Result, evaluate, read_manifest, read_result
from worldmodel.apps.evaluate.manifest import Manifest
from worldmodel.apps.evaluate.policies import Actor, ExpertPolicy, Task
from worldmodel.apps.evaluate.result import compare, rate_by_episode, write_result
from worldmodel.apps.report import render
from worldmodel.apps.runs import Run, open_run, save_run
from worldmodel.apps.settings import PlannerSettings, TrialSettings
from worldmodel.data import ActionScale, HDF5Writer, action_digest
from worldmodel.study import proportion
from worldmodel.worlds import TwoRoom, collect

SEARCH = ["--samples", "6", "--elites", "3", "--iterations", "2", "--horizon", "2"]


def tiny(**words: Any) -> TrialSettings:
    """A small search."""
    return TrialSettings(**{"samples": 6, "elites": 3, "iterations": 2, "horizon": 2, **words})


def save(folder: Path, **words: Any) -> Path:
    """An untrained run for Two-Room at 16 pixels, whose predictions depend on the actions."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"world": "two-room", "trained_on": ["a"]} | words
    model = presets.small(2 * 3, image_size=16, dim=8)
    with torch.no_grad():
        for block in model.predictor.blocks:
            block.modulation.weight.normal_(0, 0.5)
    save_run(
        model, folder, scale=ActionScale(torch.zeros(2), torch.full((2,), 0.6)), frameskip=3,
        held_out=[], settings={}, **settings,
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
    capsys.readouterr()
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def words_of(folder: Path, out: Path, *more: str) -> list[str]:
    """The command that evaluates the run on the manifest."""
    manifest, device = str(folder / "m.json"), ["--device", "cpu"]
    return ["evaluate", str(folder / "run"), "--manifest", manifest, "--out", str(out), *SEARCH,
            *device, *more]  # fmt: skip


def test_neither_batch_size_nor_order_changes_an_outcome(run: Run, manifest: Manifest) -> None:
    """The same records come from one pair at a time, three at a time, and all together."""

    def plain(result: Result) -> list[dict[str, Any]]:
        return [one.model_dump(exclude={"together", "seconds"}) for one in result.outcomes]

    results = [evaluate(run, manifest, tiny(batch_size=size, seeds=2)) for size in (1, 3, 8)]
    for result in results[1:]:
        assert plain(result) == plain(results[0])
        assert result.random_success_rate == results[0].random_success_rate
    assert [result.planning_seconds.pairs_per_decision for result in results] == [1, 3, 8]
    order = np.asarray([5, 0, 7, 2, 1, 4, 3, 6])
    found = plain(evaluate(run, manifest.take(order), tiny()))
    for record in found:
        first = plain(results[0])[order[record["pair"]]]
        assert record | {"pair": first["pair"]} == first


def test_repeats_have_seeds_of_their_own(manifest: Manifest) -> None:
    """No two repeats of a pair, and no two pairs, share a stream."""
    seeds = np.stack([manifest.seeds_of(k) for k in range(4)])
    assert len(np.unique(seeds)) == seeds.size
    assert seeds.min() >= 0


def test_rates_are_those_of_the_outcomes(manifest: Manifest) -> None:
    """Success, success at the end and by repeat are the shares of the records."""
    found = evaluate(RandomPolicy(), manifest, tiny(seeds=3))
    assert len(found.outcomes) == 3 * 8
    assert [(one.repeat, one.pair) for one in found.outcomes] == [
        (k, n) for k in range(3) for n in range(8)
    ]
    # Every pair has actions of its own every time.
    assert len({one.final_distance for one in found.outcomes}) == 24
    flags = [one.success for one in found.outcomes]
    assert found.success_rate == pytest.approx(np.mean(flags), abs=1e-4)
    # The same seeds, the same actions: the floor is this very policy.
    assert found.success_rate == found.random_success_rate
    end = np.mean([one.success_at_end for one in found.outcomes])
    assert found.success_rate_at_end == pytest.approx(end, abs=1e-4)
    assert found.success_rate_by_repeat == pytest.approx(
        [np.mean(flags[k * 8 : k * 8 + 8]) for k in range(3)], abs=1e-4
    )
    assert found.reached.tolist() == flags[:8]
    low, high = found.success_interval
    assert low <= found.success_rate <= high
    assert all((one.steps is not None) == one.success for one in found.outcomes)


def test_pairs_of_one_episode_do_not_narrow_an_interval() -> None:
    """200 pairs of 20 episodes that each succeed whole or not at all are 20 trials, not 200."""
    rng = np.random.default_rng(0)
    whole = np.arange(20).repeat(10)
    missed = np.zeros(2)
    for _ in range(200):
        shares = (rng.random(20) < 0.6).astype(float).repeat(10)
        for n, found in enumerate((rate_by_episode(shares, whole),
                                   rate_by_episode(shares, np.arange(200)))):  # fmt: skip
            missed[n] += not found.low <= 0.6 <= found.high
    assert missed[0] < 0.1 * 200 < 0.4 * 200 < missed[1]
    alone = rate_by_episode(shares, np.arange(200))
    assert alone == proportion(shares.sum(), 200)
    assert rate_by_episode(np.ones(200), whole) == proportion(20, 20)


def test_repeats_do_not_narrow_the_interval(manifest: Manifest) -> None:
    """The same pair tried twice is one pair: a policy without chance gains nothing by it."""
    once = evaluate(ExpertPolicy(), manifest, tiny())
    twice = evaluate(ExpertPolicy(), manifest, tiny(seeds=2))
    assert once.success_interval == twice.success_interval


class Straight:
    """The expert under another name."""

    def begin(self, task: Task) -> Actor:
        """Steps of the world's own expert."""
        act = task.world.expert(task.goals)
        assert act is not None
        return lambda scene: act(scene.states)[:, None]


def test_any_policy_can_be_evaluated_without_a_run(manifest: Manifest) -> None:
    """What is measured is the policy given; the fingerprint names it and no model."""
    result = evaluate(Straight(), manifest, tiny(), world=TwoRoom(32))
    assert result.success_rate == result.expert_success_rate
    mark = result.fingerprint
    assert (mark.planner, mark.run, mark.weights) == ("Straight", "Straight", None)
    assert mark.image_size == 32


# What published results and whoever reads them rely on.
TOP = (
    "env protocol manifest_protocol manifest_pairs criterion offset budget pairs_dropped_as_solved "
    "success_rate success_interval success_rate_at_end success_interval_at_end "
    "success_rate_by_repeat pairs repeats mean_steps_to_goal final_distance planning_seconds "
    "expert_success_rate expert_success_interval expert_success_rate_at_end random_success_rate "
    "random_success_interval random_success_rate_at_end noop_success_rate noop_success_interval "
    "noop_success_rate_at_end manifest_hash fingerprint outcomes median_steps_to_goal "
    "progress_to_goal action_roughness by_rule pair_episodes clear_reports"
)
KEYS = sorted(TOP.split())
# What results of earlier versions lack.
ADDED = {
    "median_steps_to_goal", "progress_to_goal", "action_roughness", "by_rule", "pair_episodes",
    "clear_reports",
}  # fmt: skip
INNER = {
    "final_distance": "median p95",
    "planning_seconds": "median p95 pairs_per_decision median_per_pair decisions",
    "fingerprint": "run objective weights planner rollouts_per_decision batch_size frameskip "
    "image_size world_versions manifest_versions versions commit machine",
}
PLANNER = (
    "name samples iterations elites std temperature rate history horizon execute held cost metric "
    "together dtype compile cuda_graph"
)
OUTCOME = "pair repeat success success_at_end steps final_distance roughness"


def test_the_keys_of_a_result_stay(run: Run, manifest: Manifest, tmp_path: Path) -> None:
    """`result.json` has these keys and no others, and is read as it was written."""
    result = evaluate(run, manifest, tiny())
    write_result(result, tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert sorted(content) == KEYS
    for name, keys in INNER.items():
        assert sorted(content[name]) == sorted(keys.split())
    assert sorted(content["fingerprint"]["planner"]) == sorted(PLANNER.split())
    assert {tuple(one) for one in content["outcomes"]} == {tuple(OUTCOME.split())}
    again = read_result(tmp_path)
    write_result(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "result.json").read_bytes()


def test_a_world_without_an_expert_has_no_rate_of_it(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its rate and interval are none, and there is none at the end."""
    monkeypatch.setattr(TwoRoom, "expert", lambda self, goals: None)
    result = evaluate(RandomPolicy(), manifest, tiny())
    write_result(result, tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content["expert_success_rate"] is content["expert_success_interval"] is None
    assert sorted({*content, "expert_success_rate_at_end"}) == KEYS
    assert "expert_success_rate_at_end" not in content


def test_the_command_leaves_all_that_is_promised(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every figure, baseline, record and fingerprint is written, and a table printed."""
    out = tmp_path / "out"
    assert main(words_of(folder, out, "--batch-size", "3")) == 0
    text = capsys.readouterr().out
    for part in ("cem", "random actions", "no-op", "scripted expert", "95 % interval"):
        assert part in text
    result = read_result(out)
    assert len(result.outcomes) == result.pairs == 8
    assert result.noop_success_rate == 0
    assert result.protocol == "held-out"
    assert result.planning_seconds.median <= result.planning_seconds.p95
    mark = result.fingerprint
    assert isinstance(mark.planner, dict)
    assert mark.planner["name"] == "cem"
    assert mark.rollouts_per_decision == 12
    assert mark.versions["torch"] == torch.__version__
    assert mark.world_versions["rendering"] == "numpy"
    assert mark.weights is not None
    assert len(mark.weights) == len(result.manifest_hash) == 64
    line = refused(capsys, *words_of(folder, out, "--batch-size", "3"))
    told = f"--out must not hold a result yet, got {out}: choose another folder"
    assert line == f"worldmodel evaluate: error: {told}"
    told = json.loads((out / "evaluate.json").read_text(encoding="utf-8"))
    assert (told["batch_size"], told["device"], told["elites"]) == (3, "cpu", 3)
    again = ["evaluate", "--config", str(out / "evaluate.json"), "--out", str(tmp_path / "b")]
    assert main([*again, str(folder / "run")]) == 0
    assert read_result(tmp_path / "b").outcomes == result.outcomes


def test_a_result_inside_a_run_folder_is_on_its_index(tmp_path: Path, folder: Path) -> None:
    """The page of the run leads to the page of the result."""
    run = save(tmp_path / "run")
    words = words_of(folder, run / "icem", "--planner", "icem", "--films", "0")
    assert main([words[0], str(run), *words[2:]]) == 0
    assert 'href="./icem/index.html"' in (run / "index.html").read_text(encoding="utf-8")
    assert main([*words_of(folder, tmp_path / "icem"), "--films", "0"]) == 0
    assert not (tmp_path / "index.html").exists()


def test_another_folder_is_not_touched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that evaluate did not make is refused, and so is a run folder."""
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, folder / "run"):
        before = {path: path.read_bytes() for path in out.iterdir()}
        assert "--out must not exist yet" in refused(capsys, *words_of(folder, out))
        assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--planner", "gradient", "--elites", "4"], "elites is a setting of cem, icem, mppi"),
        (["--temperature", "2"], "temperature is a setting of mppi, got it with planner cem"),
        (["--elites", "7"], "samples must be at least 7 for cem with elites 7, got 6"),
        (["--device", "tpu9"], "--device must be a device torch can use, got 'tpu9'"),
        (["--cuda-graph"], "cuda_graph needs a model on a CUDA device, got cpu"),
        (["--workers", "2"], "two-room is simulated all at once, without workers, got 2"),
        (["--manifest", "no.json"], "there is no manifest at no.json"),
    ],
)
def test_a_bad_setting_is_one_line_before_anything_is_written(
    words: list[str], part: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the setting; there is no folder afterwards."""
    assert part in refused(capsys, *words_of(folder, tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


def test_workers_reach_the_world(
    run: Run, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`workers` is told to `open_world`, with the manifest's world and the model's frames."""
    told: list[Any] = []

    def opened(name: str, **words: Any) -> TwoRoom:
        told.append((name, words))
        return TwoRoom(words["image_size"])

    monkeypatch.setattr("worldmodel.apps.evaluate.trial.open_world", opened)
    evaluate(run, manifest, tiny(workers=3))
    assert told == [("two-room", {"image_size": 16, "workers": 3})]


def test_a_world_of_ones_own_runs_when_the_command_names_it(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A manifest that names a class does not get it imported; `--env` does."""
    (tmp_path / "my_own_world.py").write_text(
        "from worldmodel.worlds import TwoRoom\n\n\nclass Elsewhere(TwoRoom):\n    name = 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    world, name = TwoRoom(16), "my_own_world:Elsewhere"
    walks = collect(world, 4, 12, seed=5)
    with HDF5Writer(tmp_path / "walks.h5") as writer:
        for states, actions in zip(walks.states, walks.actions, strict=True):
            writer.write(world.render(states), actions, states)
    made = ["manifest", "--env", name, "--data", "walks.h5", "--pairs", "4", "--offset", "6"]
    assert main([*made, "--budget", "5", "--out", "m.json"]) == 0
    assert read_manifest("m.json").env == name
    save(tmp_path / "run", world=name)
    words = words_of(tmp_path, tmp_path / "out")
    assert f"which is not a built-in world: add --env {name}" in refused(capsys, *words)
    assert main([*words, "--env", name, "--films", "1"]) == 0
    assert read_result(tmp_path / "out").env == name


def test_weights_of_another_world_or_width_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    """The message says what the run is of and what the manifest needs."""
    other = open_run(save(tmp_path / "other", world="push-t"))
    with pytest.raises(ValueError, match="trained on push-t, the manifest is of two-room"):
        evaluate(other, manifest, tiny())
    wide = open_run(save(tmp_path / "unknown", world=None))._replace(frameskip=2)
    with pytest.raises(ValueError, match=r"must take 2 × 2 action dims of two-room, it takes 6"):
        evaluate(wide, manifest, tiny())
    wrong = manifest.model_copy(update={"starts": manifest.starts[:, :1]})
    with pytest.raises(ValueError, match=r"must have the 2 entries of two-room, got 1"):
        evaluate(RandomPolicy(), wrong, tiny())


def test_training_episodes_are_refused_unless_history_asks(run: Run, manifest: Manifest) -> None:
    """One shared episode is enough; the historical protocol allows it and says so."""
    seen = run._replace(trained_on=frozenset(manifest.source_episodes[:1]))
    with pytest.raises(ValueError, match=r"trained on 1 of the \d episodes that the manifest"):
        evaluate(seen, manifest, tiny())
    result = evaluate(seen, manifest, tiny(protocol="historical"))
    assert result.protocol == "historical"
    label = label_of(result)
    assert "than the protocol’s 50 pairs; not drawn by this protocol: pairs solved" in label
    old = manifest.model_copy(update={"protocol": "historical"})
    with pytest.raises(ValueError, match="drawn by the historical protocol"):
        evaluate(run, old, tiny())


def label_of(result: Result) -> str:
    """The line that says what a result of the historical protocol is good for."""
    lines = render("evaluate.txt", result=result.model_dump(mode="json"), out=Path()).splitlines()
    (label,) = (line for line in lines if "HISTORICAL" in line)
    return label


def test_the_historical_label_names_where_the_planner_departs(run: Run, manifest: Manifest) -> None:
    """A smaller search, another cost and held actions are told from the published planner."""
    task = manifest.model_copy(update={"offset": 25, "budget": 50})
    label = label_of(evaluate(run, task, tiny(protocol="historical")))
    for part in (
        "samples 6, not 300", "iterations 2, not 30", "elites 3, not 30", "horizon 2, not 5",
        "execute 1, not 5", "cost nearest, not last", "one action is held for a block",
        "history none, not 1",
    ):  # fmt: skip
        assert part in label
    assert "dtype" not in label
    low = tiny(protocol="historical", dtype="bfloat16", planner="icem")
    assert "planner icem, not cem" in (label := label_of(evaluate(run, task, low)))
    assert "dtype bfloat16, not float32" in label
    published = {"samples": 300, "iterations": 30, "elites": 30, "execute": 5, "cost": "last",
                 "free": True, "history": 1}  # fmt: skip
    short = manifest.model_copy(update={"budget": 3})
    result = evaluate(run, short.take(slice(1)), TrialSettings(protocol="historical", **published))
    steps = result.model_copy(
        update={"offset": 25, "budget": 50, "manifest_protocol": "historical"}
    )
    assert label_of(steps) == (
        "  HISTORICAL PROTOCOL: for comparison with published tables only; fewer than the "
        "protocol’s 50 pairs"
    )
    assert "6 steps to the goal and a budget of 3, not 25 and 50" in label_of(result)
    assert "the policy does not plan" in label_of(
        evaluate(RandomPolicy(), manifest, tiny(protocol="historical"))
    )


def test_the_published_preset_is_the_published_planner(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 × 30, thirty elites, five blocks of five done before the next plan, last-step cost."""
    told: list[Any] = []
    monkeypatch.setattr("worldmodel.apps.evaluate.trial.run", lambda s: told.append(s) or 0)
    words = ["evaluate", str(folder / "run"), "--manifest", "m", "--out", "o", "--preset"]
    assert main([*words, "published"]) == 0
    assert main([*words, "published", "--execute", "1"]) == 0
    wanted = PlannerSettings(
        samples=300, iterations=30, elites=30, execute=5, cost="last", free=True, history=1
    )
    assert told[0].described() == wanted.described()
    assert told[1].described() == wanted.described() | {"execute": 1}


def test_the_historical_protocol_counts_fifty_pairs(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of sixty pairs it takes the first fifty, and the table is labelled."""
    words = ["--pairs", "60", "--offset", "6", "--budget", "3", "--protocol", "historical"]
    path = tmp_path / "old.json"
    assert main(["manifest", "--env", "two-room", *words, "--out", str(path)]) == 0
    words = ["--manifest", str(path), "--protocol", "historical", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(folder / "run"), *words, *SEARCH, "--films", "0"]) == 0
    label = (
        "HISTORICAL PROTOCOL: for comparison with published tables only; the first 50 of 60 pairs"
    )
    assert f"  {label}; " in capsys.readouterr().out
    assert read_result(tmp_path / "out").pairs == 50
    assert not list((tmp_path / "out").glob("*.gif"))


def test_a_manifest_of_a_data_set_leaves_out_what_a_run_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of four episodes two were trained on: pairs come from the other two."""
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
    assert set(manifest.source_episodes) <= set(names[2:])
    assert manifest.source == "2 of 4 episodes of walks.h5"
    save(tmp_path / "all", trained_on=names)
    line = refused(capsys, *words, "6", "--unseen-by", str(tmp_path / "all"))
    assert "every episode of" in line


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--env", "reacher"], "reacher needs"),
        (["--env", "mars"], "mars needs --data"),
        (["--env", "two-room", "--state", "x"], "unseen-by and state need --data"),
        (["--env", "two-room", "--pairs", "3", "--data", "no.h5"], "there is no data set at no.h5"),
        (["--env", "two-room", "--offset", "999999999"], "--offset must be at most 10000 on fresh"),
        (["--env", "two-room", "--pairs", "999999999"], "num (--pairs) must be at most the"),
        (["--env", "two-room", "--pairs", "0"], "--pairs must be greater than or equal to 1"),
    ],
)
def test_a_manifest_that_cannot_be_made_says_why(
    words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the option or the file."""
    assert part in refused(capsys, "manifest", *words, "--out", str(tmp_path / "m.json"))
    assert not (tmp_path / "m.json").exists()


ResultOf = Callable[..., Result]


@pytest.fixture(scope="module")
def result_of(manifest: Manifest) -> ResultOf:
    """Flags -> a result with these successes, one record a pair, none of them at the end."""
    whole = evaluate(RandomPolicy(), manifest, tiny())

    def make(flags: list[int], **words: Any) -> Result:
        one = whole.outcomes[0]
        outcomes = tuple(
            one.model_copy(update={"pair": n, "success": bool(f), "success_at_end": False,
                                   "steps": 1 if f else None})
            for n, f in enumerate(flags)
        )  # fmt: skip
        return whole.model_copy(update={"outcomes": outcomes, **words})

    return make


def test_comparing_counts_the_pairs_on_which_two_results_differ(result_of: ResultOf) -> None:
    """Seven pairs won, one lost: the difference is 6/20 and the p-value that of eight coins."""
    a, b = [0] * 7 + [1] + [1] * 12, [1] * 7 + [0] + [1] * 12
    found = compare(result_of(a), result_of(b))
    part = found.success
    assert (part.only_b_better, part.only_a_better, part.pairs) == (7, 1, 20)
    assert part.difference == pytest.approx(0.3)
    assert part.p_value == pytest.approx(18 / 256)
    assert found.success_at_end.p_value == 1
    back = compare(result_of(b), result_of(a)).success
    assert back.difference == pytest.approx(-0.3)
    assert back.p_value == part.p_value


def test_a_test_and_an_interval_that_disagree_are_explained(result_of: ResultOf) -> None:
    """p = 0.07 beside an interval without 0 is not left as a riddle; nothing is said otherwise."""
    a, b = [0] * 7 + [1] + [1] * 12, [1] * 7 + [0] + [1] * 12
    for first, said in ((a, 1), (b, 0)):
        found = compare(result_of(first), result_of(b))
        for page in ("compare.txt", "compare.html"):
            told = render(page, names=["a", "b"], found=found).lower()
            assert told.count("test and interval disagree: the test is exact") == said


def test_what_differs_in_more_than_the_policy_is_not_compared(result_of: ResultOf) -> None:
    """Other manifests, protocols or pairs are refused by name."""
    a = result_of([0, 1], manifest_hash="f" * 64)
    with pytest.raises(ValueError, match=r"must be of one manifest, got ffffffffffff and 0000"):
        compare(a, result_of([0, 1], manifest_hash="0" * 64))
    with pytest.raises(ValueError, match="must be of one protocol, got held-out and historical"):
        compare(a, result_of([0, 1], manifest_hash="f" * 64, protocol="historical"))
    with pytest.raises(ValueError, match="must hold the same pairs, got 2 and 3"):
        compare(a, result_of([0, 1, 1], manifest_hash="f" * 64))


def test_pairs_of_one_episode_are_one_coin(result_of: ResultOf) -> None:
    """Ten pairs won in one episode are one win: the test has two coins, the interval five."""
    a, b, of = [0] * 50, [1] * 10 + [0] * 39 + [1], tuple(n // 10 for n in range(50))
    apart, shared = (
        compare(result_of(a), result_of(b, pair_episodes=episodes)).success for episodes in ((), of)
    )
    assert (apart.p_value, shared.p_value) == (2 * 0.5**11, 0.5)
    assert (apart.episodes, shared.episodes, shared.only_b_better) == (50, 5, 11)
    assert apart.interval[0] > 0.08
    assert shared.interval[0] <= 0.02 < apart.interval[1] < shared.interval[1]


def test_training_seeds_widen_what_pairs_alone_would_say(result_of: ResultOf) -> None:
    """Runs that disagree leave more open than one run; runs that agree leave as much."""
    rng = np.random.default_rng(0)
    flags = [(rng.random(200) < p).astype(int).tolist() for p in (0.4, 0.6, 0.5)]
    a, b = [result_of([0, 1] * 100)] * 3, [result_of(some) for some in flags]
    one = compare(result_of([0, 1] * 100), result_of(flags[2])).success
    three = compare(a, b).success
    assert three.b == pytest.approx(np.mean(flags), abs=1e-4)
    assert three.b_runs == pytest.approx([np.mean(some) for some in flags])
    assert three.b_interval[1] - three.b_interval[0] > one.b_interval[1] - one.b_interval[0]
    half = (three.interval[1] - three.interval[0]) / 2
    # Student's 97.5 % point of two degrees of freedom is 4.30.
    assert half > 4.3 * np.std([np.mean(some) for some in flags], ddof=1) / 3**0.5
    assert three.smallest_difference == pytest.approx(1.43 * half, abs=1e-3)
    same = compare([result_of([0, 1] * 100)] * 3, [result_of(flags[2])] * 3).success
    assert same.interval == one.interval
    # Without a difference anywhere, something may still have been missed.
    none = compare(a, a).success
    assert none.interval == (-0.0188, 0.0188)


def test_comparing_on_the_command_line(
    tmp_path: Path, result_of: ResultOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders and files are read alike; figures and a page are written, over nothing else."""
    (tmp_path / "a").mkdir()
    write_result(result_of([0, 0, 0]), tmp_path / "a" / "result.json")
    write_result(result_of([1, 1, 0]), tmp_path / "b.json")
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b.json")]
    assert main([*words, "--out", str(tmp_path / "c.json")]) == 0
    assert "B − A +66.7 points" in capsys.readouterr().out
    written = (tmp_path / "c.json").read_bytes()
    assert json.loads(written)["success"]["p_value"] == 0.5
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "+66.7 points" in page
    assert "must not exist yet" in refused(capsys, *words, "--out", str(tmp_path / "c.json"))
    write_result(result_of([1, 0, 0]), tmp_path / "b2.json")
    assert main([*words[:2], str(tmp_path / "b*.json")]) == 0
    assert "over 3 episodes and 1 and 2 training seeds" in capsys.readouterr().out
    (tmp_path / "d.html").write_text("mine")
    assert "d.html" in refused(capsys, *words, "--out", str(tmp_path / "d.json"))
    assert not (tmp_path / "d.json").exists()
    for given in ("b.json", "a/result.json"):
        line = refused(capsys, *words, "--out", str(tmp_path / given))
        assert "--out must not be a file that the command reads" in line
    assert "must be a JSON file" in refused(capsys, *words, "--out", str(tmp_path / "e.html"))
    assert "there is no result at" in refused(capsys, "compare", str(tmp_path), words[1])


def test_what_is_no_result_is_one_line(
    tmp_path: Path, result_of: ResultOf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged, foreign and deeply nested files, and those that lack a key, are named."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    write_result(result_of([0, 1]), good)
    content = json.loads(good.read_text(encoding="utf-8"))
    texts = ["{", "[]", "{}", "[" * 10**5, '{"env": ' + "9" * 5000 + "}", "\x00", "null"]
    texts += [json.dumps({k: v for k, v in content.items() if k != key}) for key in KEYS]
    texts += [json.dumps(content | {key: {"x": []}}) for key in KEYS]
    texts += [json.dumps(content | {"outcomes": []}), json.dumps(content | {"outcomes": [{}]})]
    texts += [json.dumps(content | {"success_rate": 1.5}), json.dumps(content | {"more": 1})]
    optional = {
        json.dumps({k: v for k, v in content.items() if k != key})
        for key in KEYS
        if key.startswith("expert_") or key in ADDED
    }
    for text in texts:
        bad.write_text(text, encoding="utf-8")
        if text in optional:
            assert main(["compare", str(good), str(bad)]) == 0
            continue
        line = refused(capsys, "compare", str(good), str(bad))
        assert f"{bad} is no result: " in line


def test_a_planner_with_other_settings_has_another_fingerprint(
    run: Run, manifest: Manifest
) -> None:
    """What was changed on the command line is what the result says."""
    one, two = (evaluate(run, manifest, tiny(**w)).fingerprint for w in ({}, {"cost": "mean"}))
    assert one.weights == two.weights
    assert isinstance(one.planner, dict)
    assert isinstance(two.planner, dict)
    assert (one.planner["cost"], two.planner["cost"]) == ("nearest", "mean")
