"""Models from a folder and from the hub, by huggingface_hub's own client against a server here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import worldmodel
from worldmodel import GCBC, WorldModel, presets
from worldmodel.checkpoint import digest

pytest.importorskip("huggingface_hub")


class Hub(ThreadingHTTPServer):
    """The part of the hub's interface that a download and an upload need, in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []

    @property
    def commit(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers of that hub."""

    server: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            files = self.server.files.get("/".join(parts[2:4]))
            if files is None:
                self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                return
            siblings = [{"rfilename": name} for name in files]
            if "tree" in parts:
                entries = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                           for n, c in files.items()]  # fmt: skip
                self.answer(entries)
                return
            name = "/".join(parts[2:4])
            self.answer({"id": name, "sha": self.server.commit, "siblings": siblings})
            return
        content = self.server.files["/".join(parts[:2])]["/".join(parts[4:])]
        etag = hashlib.sha1(content).hexdigest()
        self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=self.server.commit)

    do_HEAD = do_GET  # noqa: N815 - the server's word

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[-1] == "create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            self.server.files.setdefault(name, {})
            self.answer({"url": f"{self.address()}/{name}", "name": name, "id": name})
        elif parts[-1] == "validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "preupload" in parts:
            files = json.loads(body)["files"]
            kept = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files]  # fmt: skip
            self.answer({"files": kept})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            store = self.server.files["/".join(parts[2:4])]
            for line in lines:
                if line["key"] == "file":
                    store[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.server.commits.append(lines[0]["value"]["summary"])
            url = f"{self.address()}/{'/'.join(parts[2:4])}/commit/{self.server.commit}"
            self.answer({"success": True, "commitOid": self.server.commit, "commitUrl": url})


@pytest.fixture
def server() -> Iterator[Hub]:
    """A hub on this machine."""
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def client(server: Hub, folder: Path, code: str) -> str:
    """What a process prints whose huggingface_hub talks to that hub."""
    env = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_test",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def model() -> WorldModel:
    """A small world model."""
    torch.manual_seed(0)
    return presets.small(2, image_size=16, dim=8).eval()


def test_what_is_pushed_comes_back(server: Hub, tmp_path: Path) -> None:
    """Weights go to the hub and come back bit for bit; checkpoints stay where they are."""
    folder = tmp_path / "run"
    worldmodel.save(model(), folder)
    (folder / "README.md").write_text("A model.\n", encoding="utf-8")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-1.safetensors").write_bytes(b"large")
    pushed = "import worldmodel; print(worldmodel.push_to_hub('run', 'me/door'))"
    commit = client(server, tmp_path, pushed)
    assert commit == server.commit
    assert set(server.files["me/door"]) == {"README.md", "config.json", "model.safetensors"}
    code = (
        "import worldmodel\nfrom worldmodel.checkpoint import digest\n"
        f"print(digest(worldmodel.from_pretrained('me/door', revision={commit!r})))"
    )
    assert client(server, tmp_path, code) == digest(worldmodel.load(folder))


def test_what_the_hub_lacks_is_said_in_one_line(server: Hub, tmp_path: Path) -> None:
    """A name that is neither a folder nor a repository, and one that is no name at all."""
    code = (
        "import worldmodel\ntry:\n    worldmodel.from_pretrained('me/nothing')\n"
        "except FileNotFoundError as error:\n    print(error)"
    )
    assert "me/nothing is no local folder, and the hub refused" in client(server, tmp_path, code)
    with pytest.raises(FileNotFoundError, match="is neither a folder nor an owner/name"):
        worldmodel.from_pretrained(tmp_path / "a" / "b" / "c")


def test_a_folder_wins_and_takes_no_revision(tmp_path: Path) -> None:
    """A run folder is read without the hub, a policy as a policy; a revision there is a mistake."""
    worldmodel.save(model(), tmp_path / "run")
    assert isinstance(worldmodel.from_pretrained(tmp_path / "run"), WorldModel)
    with pytest.raises(ValueError, match="revision is of models on the hub, got 'main'"):
        worldmodel.from_pretrained(tmp_path / "run", revision="main")
    parts = model()
    policy = GCBC(parts.encoder, parts.predictor, 2)
    worldmodel.save(policy, tmp_path / "policy")
    assert isinstance(worldmodel.from_pretrained(tmp_path / "policy"), GCBC)


def test_a_folder_without_a_model_is_not_pushed(tmp_path: Path) -> None:
    """Nothing is asked of the hub before the folder is read."""
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        worldmodel.push_to_hub(tmp_path, "me/door")
    worldmodel.save(model(), tmp_path / "run")
    with pytest.raises(ValueError, match="repository must be owner/name, got 'door'"):
        worldmodel.push_to_hub(tmp_path / "run", "door")
