"""Truths of data behind a URL, read from an S3 server in this process."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.registry import _registry

from worldmodel.apps.cli import main
from worldmodel.apps.runs import open_run
from worldmodel.apps.train.command import run as train
from worldmodel.checkpoint import digest
from worldmodel.data import BatchOrder, Episodes, HDF5Writer, Windows, loader, open_hdf5
from worldmodel.data import _cloud as cloud
from worldmodel.data.opening import format_of, open_episodes

s3fs = pytest.importorskip("s3fs", reason="sigreg[cloud] is not installed")
h5py = pytest.importorskip("h5py", reason="sigreg[worldmodel] is not installed")
moto = pytest.importorskip("moto.server", reason="moto[s3] and flask are not installed")

sys.path.insert(0, str(Path(__file__).parent))
from hdf5_files import assert_same, publish, write  # noqa: E402
from killed_runs import settings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

Walks = Callable[[list[int]], list[Any]]
LENGTHS = [9, 14, 11]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """An S3 server on a free port."""
    found = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def bucket(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """(path, name) -> URL: puts a file or a folder into an empty bucket."""
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_DEFAULT_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLDMODEL_CACHE_GB", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("data")

    def put(path: Path, name: str) -> str:
        system.put(str(path), f"data/{name}", recursive=path.is_dir())
        return f"s3://data/{name}"

    yield put
    ask("reset", address)
    s3fs.S3FileSystem.clear_instance_cache()


def ask(what: str, address: str, words: bytes = b"") -> None:
    """Tell the server."""
    told = urllib.request.Request(
        f"{address}/moto-api/{what}", words, {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(told).close()


def uncompressed(path: Path, walks: list[Any]) -> Path:
    """One frame a chunk, our writer's."""
    write(path, walks)
    return path


def gzip(path: Path, walks: list[Any]) -> Path:
    """Compressed by gzip."""
    write(path, walks, compression="gzip")
    return path


def jpeg(path: Path, walks: list[Any]) -> Path:
    """Stored as JPEG."""
    write(path, walks, jpeg=90)
    return path


def published(path: Path, walks: list[Any]) -> Path:
    """The published layout."""
    publish(path, walks)
    return path


def states(path: Path, walks: list[Any]) -> Path:
    """States and no frames."""
    with HDF5Writer(path) as writer:
        for walk in walks:
            writer.write(None, walk.actions, walk.states)
    return path


def lerobot(path: Path, walks: list[Any]) -> Path:
    """A LeRobot folder of version 3."""
    pytest.importorskip("av", reason="sigreg[lerobot] is not installed")
    pytest.importorskip("pyarrow", reason="sigreg[lerobot] is not installed")
    from test_lerobot import make_v3

    make_v3(path, walks)
    return path


def batches(episodes: Episodes, workers: int) -> list[Any]:
    """The batches of one pass over all windows."""
    windows = Windows(episodes, num_frames=2, frameskip=2)
    endless = loader(windows, BatchOrder(len(windows), 4, seed=0), workers=workers)
    return list(islice(endless, len(windows) // 4))


def kept_bytes() -> int:
    """Bytes in the cache; a file may go while it is counted."""
    total = 0
    for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@pytest.mark.parametrize("make", [uncompressed, gzip, jpeg, published, states, lerobot])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_the_windows_of_the_file(
    bucket: Any,
    tmp_path: Path,
    counter_walks: Walks,
    make: Callable[[Path, list[Any]], Path],
    workers: int,
) -> None:
    """Every frame, action and state, bit for bit; also pickled and in worker processes."""
    here = make(tmp_path / "walks", counter_walks([7, 4, 12] if make is lerobot else LENGTHS))
    url = bucket(here, "walks")
    assert format_of(url) == format_of(here)
    found, wanted = open_episodes(url), open_episodes(here)
    assert_same(found, wanted)
    assert_same(pickle.loads(pickle.dumps(found)), wanted)
    for ours, theirs in zip(batches(found, workers), batches(wanted, 0), strict=True):
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.actions, theirs.actions)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_never_holds_more_than_its_bound(
    bucket: Any, tmp_path: Path, counter_walks: Walks, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """While more is read than fits, and the windows stay right."""
    url = bucket(uncompressed(tmp_path / "walks.h5", counter_walks([100] * 4)), "walks.h5")
    monkeypatch.setattr(cloud, "_BLOCK", 4096)
    bound = 16 * 2 * 4096
    monkeypatch.setenv("WORLDMODEL_CACHE_GB", str(bound / 1e9))
    assert (tmp_path / "walks.h5").stat().st_size > 2 * bound
    windows = Windows(open_episodes(url), num_frames=2, frameskip=2)
    order, most = BatchOrder(len(windows), 8, seed=0), 0
    for step, batch in enumerate(islice(loader(windows, order, workers=workers), 16)):
        most = max(most, kept_bytes())
        if step % 8 == 0:
            local = Windows(open_hdf5(tmp_path / "walks.h5"), num_frames=2, frameskip=2)
            assert torch.equal(batch.frames, local.batch(order.batch(step)).frames)
    assert bound / 3 < most <= bound


def test_the_block_unused_for_longest_leaves_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that is read again stays, and is fetched once; without room nothing is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cloud, "_FOLDERS", 1)
    monkeypatch.setattr(cloud, "sha256", lambda words: Named(words.decode()))
    monkeypatch.setenv("WORLDMODEL_CACHE_GB", str(250 / 1e9))
    fetched = []

    def fetch(start: int, end: int) -> bytes:
        assert not gc.isenabled()  # it could wait for h5py's lock
        fetched.append(start)
        return bytes([start // 100]) * (end - start)

    def read(number: int) -> None:
        start = 100 * number
        found = cloud._block(fetch, "s3://a/b", "b", 10_050, start, start + 100)
        assert found == bytes([number]) * (50 if number == 100 else 100)
        time.sleep(0.01)  # the clock of a file system is coarse

    for number in (0, 1, 0, 2, 0, 1, 100):
        read(number)
    assert fetched == [0, 100, 200, 100, 10_000]
    assert gc.isenabled()
    monkeypatch.setenv("WORLDMODEL_CACHE_GB", "0")
    for _ in range(2):
        read(5)
    assert fetched[-2:] == [500, 500]
    monkeypatch.setenv("WORLDMODEL_CACHE_GB", "many")
    with pytest.raises(ValueError, match="WORLDMODEL_CACHE_GB must be a number of gigabytes, got"):
        read(6)


class Named:
    """A digest that is the words themselves, all in one folder."""

    def __init__(self, words: str) -> None:
        self._words = words

    def hexdigest(self) -> str:
        return f"0 {self._words}"


def test_a_cache_that_cannot_be_written_is_done_without(
    bucket: Any, tmp_path: Path, counter_walks: Walks
) -> None:
    """The data are read, and a warning says why each block is fetched again."""
    url = bucket(uncompressed(tmp_path / "walks.h5", counter_walks(LENGTHS)), "walks.h5")
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(RuntimeWarning, match="is read without a cache: "):
        assert_same(open_episodes(url), open_hdf5(tmp_path / "walks.h5"))


def test_a_replaced_object_is_fetched_anew(
    bucket: Any, tmp_path: Path, counter_walks: Walks
) -> None:
    """Blocks of the earlier object never stand in for those of the new one."""
    walks = counter_walks([9, 9])
    url = bucket(uncompressed(tmp_path / "a.h5", walks), "walks.h5")
    first = open_episodes(url).actions
    bucket(uncompressed(tmp_path / "b.h5", walks[::-1]), "walks.h5")
    s3fs.S3FileSystem.clear_instance_cache()
    assert not torch.equal(first.nan_to_num(), open_episodes(url).actions.nan_to_num())
    assert_same(open_episodes(url), open_hdf5(tmp_path / "b.h5"))


def test_a_run_trains_to_the_same_weights(bucket: Any, tmp_path: Path, capsys: Any) -> None:
    """Interrupted and resumed from the URL, which the run remembers, as straight from the file."""
    from test_train_run import write_walks

    here = write_walks(tmp_path / "walks.h5")
    url = bucket(here, "walks.h5")
    told = settings(here, tmp_path / "straight")
    train(told)
    away = told.model_copy(update={"data": url, "out": tmp_path / "away"})
    train(away)
    # As a kill after two of the four steps would leave it.
    for path in (*away.out.glob("checkpoints/*4*"), away.out / "report.json"):
        path.unlink()
    train(away.model_copy(update={"resume": True, "workers": 2}))
    assert "resumed at step 2 of 4" in "".join(capsys.readouterr())
    assert digest(open_run(away.out).model) == digest(open_run(told.out).model)
    assert open_run(away.out).data == url


def test_the_commands_take_a_url(
    bucket: Any, tmp_path: Path, counter_walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`inspect` describes it as the file, and `convert` copies it."""
    url = bucket(uncompressed(tmp_path / "walks.h5", counter_walks(LENGTHS)), "walks.h5")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "inspect", url]) == 0
    assert (tmp_path / "walks.h5.sheet.png").is_file()
    assert main(["data", "convert", url, "copy.h5"]) == 0
    assert_same(open_hdf5("copy.h5"), open_hdf5("walks.h5"))


def test_mistakes_are_one_line(
    bucket: Any, tmp_path: Path, counter_walks: Walks, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each names the URL and says what is wrong with it."""
    url = bucket(uncompressed(tmp_path / "walks.h5", counter_walks(LENGTHS)), "walks.h5")
    (tmp_path / "plain").write_text("some words, but no data")
    minari = tmp_path / "minari/data"
    minari.mkdir(parents=True)
    (minari / "metadata.json").write_text("{}")
    cut = tmp_path / "cut.h5"
    cut.write_bytes((tmp_path / "walks.h5").read_bytes()[:5000])
    open_file = tmp_path / "open.h5"
    with h5py.File(open_file, "w", libver="latest") as file:
        file.swmr_mode = True
        file.flush()
        bucket(open_file, "open.h5")

    def told(url: str) -> str:
        assert main(["data", "inspect", url, "--sheet", str(tmp_path / "sheet.png")]) == 2
        words = str(capsys.readouterr().err)
        assert words.count("\n") == 1
        assert url in words
        return words

    assert "there is no data set at" in told("s3://data/none.h5")
    assert "there is no data set at" in told("s3://nobody/walks.h5")
    assert "must be an HDF5 file, got" in told(bucket(tmp_path / "plain", "plain"))
    assert "cannot read" in told(bucket(cut, "cut.h5"))
    assert "must be a closed file" in told("s3://data/open.h5")
    assert "on this machine" in told(bucket(tmp_path / "minari", "minari"))
    assert "Protocol not known: nowhere" in told("nowhere://data/walks.h5")
    ask("reset-auth", os.environ["AWS_ENDPOINT_URL"], b"0")
    try:
        assert "no permission to read" in told(url)
    finally:
        ask("reset-auth", os.environ["AWS_ENDPOINT_URL"], b"inf")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3")
    assert 'pip install "sigreg[cloud]"' in told(url)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_lost_server_ends_in_an_error(
    tmp_path: Path, bucket: Any, counter_walks: Walks, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Not in a hang, in this process or in a worker; fsspec's settings say how long it takes."""
    brief = {"connect_timeout": 1, "read_timeout": 1, "retries": {"max_attempts": 0}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": brief})
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    gone = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    gone.start()
    host, port = gone.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setattr(cloud, "_BLOCK", 4096)
    monkeypatch.setenv("WORLDMODEL_CACHE_GB", "0")
    s3fs.S3FileSystem.clear_instance_cache()
    url = bucket(uncompressed(tmp_path / "walks.h5", counter_walks([150] * 2)), "walks.h5")
    windows = Windows(open_episodes(url), num_frames=2, frameskip=2)
    batches = iter(loader(windows, BatchOrder(len(windows), 4, seed=0), workers=workers))
    next(batches)
    gone.stop()
    with pytest.raises(OSError, match=r"cannot read s3://data/walks\.h5"):
        list(islice(batches, 100))
    del batches
    gc.collect()  # its workers end with it, and an error holds it in a cycle
