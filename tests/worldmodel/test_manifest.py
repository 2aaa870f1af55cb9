"""A manifest comes back as it was written, and only as it was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from worldmodel.apps.cli import main
from worldmodel.apps.evaluate.manifest import (
    Manifest,
    make_manifest,
    read_manifest,
    write_manifest,
)
from worldmodel.data import HDF5Writer
from worldmodel.worlds import TwoRoom, collect

MANIFESTS = Path(__file__).resolve().parents[2] / "benchmarks" / "manifests"
WORLD = TwoRoom(16)
WALKS = collect(WORLD, 30, 40, seed=1)
NAMES = [f"episode {e}" for e in range(30)]


def made(seed: int = 3, **words: object) -> Manifest:
    """Twenty pairs of thirty walks."""
    settings = {"num": 20, "offset": 25, "budget": 50, "source": "walks"} | words
    return make_manifest(WORLD, list(WALKS.states), NAMES, seed=seed, **settings)  # type: ignore[arg-type]


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every entry survives the file, states to the last bit."""
    manifest = made()
    write_manifest(manifest, tmp_path / "m.json")
    read = read_manifest(tmp_path / "m.json")
    for name in Manifest.model_fields:
        assert np.array_equal(getattr(read, name), getattr(manifest, name)), name
    assert read.starts.dtype == np.float32
    write_manifest(read, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "m.json").read_bytes()


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.json")), ids=lambda path: path.stem)
def test_manifests_of_earlier_versions_keep_their_hash(path: Path, tmp_path: Path) -> None:
    """Those that published results name are read, and written again byte for byte."""
    manifest = read_manifest(path)
    write_manifest(manifest, tmp_path / "m.json")
    assert (tmp_path / "m.json").read_bytes() == path.read_bytes()


def test_some_pairs_of_a_manifest_are_still_of_it() -> None:
    """Pairs, seeds and sources go together, in the order asked for."""
    manifest, which = made(), np.asarray([7, 2])
    some = manifest.take(which)
    assert np.array_equal(some.starts, manifest.starts[which])
    assert np.array_equal(some.seeds, manifest.seeds[which])
    assert some.sha256 == manifest.sha256


def test_each_pair_names_the_episode_it_came_from() -> None:
    """The name beside a start is that of the walk that holds it; unused walks are not named."""
    manifest = made(num=5)
    for start, episode, row in zip(manifest.starts, manifest.episodes, manifest.rows, strict=True):
        e = NAMES.index(manifest.source_episodes[episode])
        assert np.array_equal(WALKS.states[e, row], start)
    assert set(manifest.episodes) == set(range(len(manifest.source_episodes)))


def test_the_hash_is_of_the_content_and_of_all_of_it(tmp_path: Path) -> None:
    """The same draw has the same hash, in whatever layout; another seed or budget has another."""
    assert made().sha256 == made().sha256
    assert (
        len({made().sha256, made(seed=4).sha256, made(budget=51).sha256, made(source="w").sha256})
        == 4
    )
    path = tmp_path / "m.json"
    write_manifest(made(), path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3, sort_keys=True))
    assert read_manifest(path).sha256 == made().sha256


@pytest.mark.parametrize(
    ("entry", "value"),
    [("budget", 51), ("criterion", "anything"), ("goals", [[1.0, 2.0]] * 20), ("sha256", "0" * 64)],
)
def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path, entry: str, value: object) -> None:
    """Whatever is changed, the hash no longer fits, and the message says so."""
    path = tmp_path / "m.json"
    write_manifest(made(), path)
    content = json.loads(path.read_text())
    content[entry] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"m\.json was changed after it was made"):
        read_manifest(path)


def test_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    """Absent, damaged, foreign and newer files each say what they are."""
    path = tmp_path / "m.json"
    with pytest.raises(FileNotFoundError, match="there is no manifest at"):
        read_manifest(path)
    write_manifest(made(), path)
    good = json.loads(path.read_text())
    for text in ("{", "[]", '{"sha256": "x"}', "[" * 10**5, '{"seed": ' + "9" * 5000 + "}", "\xff"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"m\.json is no manifest: "):
            read_manifest(path)
    for entry, value, part in (
        ("format", 2, "format must be 1, got 2"),
        ("budget", 0, "budget must be greater than or equal to 1, got 0"),
        ("budget", "50", "budget must be a valid integer"),
        ("seed", -1, "seed must be"),
        ("protocol", "none", "protocol must be 'held-out', 'strict'"),
        ("starts", [[1.0, 2.0]] * 19, "must have one entry per pair"),
        ("starts", [[1.0]] * 20, "must have one entry per pair"),
        ("starts", [[1.0, 2.0]] * 19 + [[1.0]], "must be rows of finite numbers"),
        ("goals", [[1.0, 1e999]] * 20, "must be rows of finite numbers"),
        ("goals", {"x": 1}, "must be rows of finite numbers"),
        ("episodes", [99] * 20, "must index source_episodes"),
        ("seeds", [-1] * 20, "(must be whole numbers|nothing may be negative)"),
        ("seeds", [0.5] * 20, "(must be whole numbers|nothing may be negative)"),
        ("versions", {"numpy": 2}, "versions.numpy must be"),
        ("more", 1, "more is an unknown entry"),
    ):
        content = good | {entry: value}
        del content["sha256"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        # Somebody who knows the format renews the hash.
        content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"m\.json is no manifest: .*{part}") as caught:
            read_manifest(path)
        assert "\n" not in str(caught.value)
    for missing in good:
        path.write_text(json.dumps({k: v for k, v in good.items() if k != missing}))
        with pytest.raises(ValueError, match=r"m\.json (is no manifest|was changed)"):
            read_manifest(path)


def test_the_historical_protocol_keeps_solved_pairs() -> None:
    """At a short offset many pairs are solved; only the held-out protocol leaves them out."""
    fair, old = made(offset=2), made(offset=2, protocol="historical")
    assert not WORLD.success(fair.starts, fair.goals).any()
    assert fair.dropped_as_solved > 0
    assert WORLD.success(old.starts, old.goals).any()
    assert old.dropped_as_solved == 0
    assert (fair.protocol, old.protocol) == ("held-out", "historical")


def test_impossible_tasks_are_refused() -> None:
    """A budget of nothing and states of another world are named."""
    with pytest.raises(ValueError, match="budget"):
        made(budget=0)
    with pytest.raises(ValueError, match=r"states must have the 2 entries of two-room, got \[5\]"):
        make_manifest(
            WORLD, [np.zeros((40, 5), np.float32)], ["a"], num=1, offset=2, budget=3, seed=0,
            source="",
        )  # fmt: skip


def test_seeds_are_whole_numbers_that_any_reader_of_json_keeps() -> None:
    """Each pair has its own, below 2^53, and a draw of another seed has others."""
    seeds = made().seeds
    assert len(set(seeds.tolist())) == len(seeds)
    assert 0 <= seeds.min()
    assert seeds.max() < 2**53
    assert not np.array_equal(seeds, made(seed=4).seeds)


def test_a_manifest_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results know their task by its hash alone; the same task again is no harm."""
    path = tmp_path / "m.json"
    words = ["--env", "two-room", "--pairs", "4", "--offset", "6", "--out", str(path)]
    assert main(["manifest", *words]) == 0
    before = path.read_bytes()
    assert main(["manifest", *words]) == 0
    message = f"--out must not hold another file yet, got {path}: choose another name"
    assert main(["manifest", *words, "--seed", "1"]) == 2
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before
    path.write_text("notes")
    assert main(["manifest", *words]) == 2
    assert message in capsys.readouterr().err
    assert path.read_text() == "notes"


def test_a_manifest_replaces_neither_a_link_nor_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a link leads to, and the data set that pairs are drawn from, stay as they are."""
    kept, link = tmp_path / "kept.txt", tmp_path / "m.json"
    kept.write_text("mine")
    link.symlink_to(kept)
    words = ["--env", "two-room", "--pairs", "4", "--offset", "6"]
    assert main(["manifest", *words, "--out", str(link)]) == 2
    assert "--out must not hold another file yet" in capsys.readouterr().err
    assert main(["manifest", *words, "--data", str(kept), "--out", str(kept)]) == 2
    assert "--out must not be a file that the command reads" in capsys.readouterr().err
    assert (kept.read_text(), link.is_symlink()) == ("mine", True)


def test_a_budget_shorter_than_the_way_is_remarked_upon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be meant, and it may be a forgotten option."""
    words = ["--env", "two-room", "--pairs", "4", "--offset", "6"]
    for budget, shorter in (("5", True), ("6", False)):
        out = str(tmp_path / f"{budget}.json")
        assert main(["manifest", *words, "--budget", budget, "--out", out]) == 0
        told = "shorter than the 6 steps from start to goal" in capsys.readouterr().out
        assert told == shorter


def test_no_episode_gives_a_second_pair_before_all_have_given_one() -> None:
    """Of 30 episodes 20 pairs come from 20; of 8 episodes 20 pairs come two or three from each."""
    assert len(set(made().episodes.tolist())) == 20
    few = make_manifest(
        WORLD, list(WALKS.states[:8]), NAMES, num=20, offset=5, budget=9, seed=0, source="walks"
    )
    counts = np.bincount(few.episodes)
    assert (counts.min(), counts.max(), len(counts)) == (2, 3, 8)


def test_too_few_episodes_are_remarked_upon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More pairs than episodes are said to share some; as many are not."""
    with HDF5Writer(tmp_path / "walks.h5") as writer:
        for states, actions in zip(WALKS.states[:4], WALKS.actions[:4], strict=True):
            writer.write(WORLD.render(states), actions, states)
    words = ["manifest", "--env", "two-room", "--data", str(tmp_path / "walks.h5"), "--offset", "6"]
    for pairs, shared in (("4", False), ("5", True)):
        assert main([*words, "--pairs", pairs, "--out", str(tmp_path / f"{pairs}.json")]) == 0
        assert ("some pairs share an episode" in capsys.readouterr().out) == shared


def test_a_protocol_sets_offset_and_budget_unless_told(tmp_path: Path) -> None:
    """Strict goals lie 50 steps away with 100 allowed; CLEAR's start and goal are a door apart."""
    words = ["manifest", "--env", "two-room", "--pairs", "5", "--protocol"]
    assert main([*words, "strict", "--out", str(tmp_path / "s.json")]) == 0
    strict = read_manifest(tmp_path / "s.json")
    assert (strict.protocol, strict.offset, strict.budget) == ("strict", 50, 100)
    assert main([*words, "strict", "--offset", "60", "--out", str(tmp_path / "t.json")]) == 0
    assert read_manifest(tmp_path / "t.json").offset == 60
    assert main([*words, "clear-strict", "--out", str(tmp_path / "c.json")]) == 0
    clear = read_manifest(tmp_path / "c.json")
    assert (TwoRoom().room(clear.starts) != TwoRoom().room(clear.goals)).all()
    assert clear.criterion.startswith("centres closer than 8 of 224 units")
