"""onnxruntime-web for the page: from a folder, from the cache, from npm, or from its public host."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

__all__ = ["CDN", "FILES", "find_runtime"]

_VERSION = "1.30.0"
_PACKAGE = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
FILES = {
    "ort.wasm.bundle.min.mjs": (
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"
    ),
}
"""What the page loads, and the hash of each file."""
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{_VERSION}/dist/"


def find_runtime(given: Path | None) -> Path | None:
    """The folder that holds the runtime's files, filled by npm if it must be.

    Args:
        given: a folder; None means the cache.
    Returns: the folder; None where there is neither a cache nor npm, or npm cannot reach its host.
    Raises: FileNotFoundError if a given folder lacks a file; ValueError if what npm brought is not
        the package that this version was made for.
    """
    if given is not None:
        for folder in (given, given / "dist"):
            if all((folder / name).is_file() for name in FILES):
                return folder
        raise FileNotFoundError(f"--runtime must be a folder with {' and '.join(FILES)}: {given}")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = home / "worldmodel" / f"onnxruntime-web-{_VERSION}"
    if all(_hash(cache / name, "sha384") == digest for name, digest in FILES.items()):
        return cache
    if (npm := shutil.which("npm")) is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"onnxruntime-web@{_VERSION}", "--silent", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=300)  # noqa: S603 - npm itself, without a shell
        except (OSError, subprocess.SubprocessError):
            return None
        (packed,) = Path(scratch).glob("*.tgz")
        if _hash(packed, "sha512") != _PACKAGE:
            raise ValueError(f"npm brought another onnxruntime-web {_VERSION} than the known one")
        cache.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as package:
            for name in FILES:
                content = package.extractfile(f"package/dist/{name}")
                if content is not None:
                    draft = cache / f"{name}.{os.getpid()}"
                    draft.write_bytes(content.read())
                    draft.replace(cache / name)
    return cache


def _hash(file: Path, kind: str) -> str:
    if not file.is_file():
        return ""
    digest = hashlib.new(kind, file.read_bytes()).digest()
    return f"{kind}-{base64.b64encode(digest).decode()}"
