"""Files of onnxruntime-web for the page: from a folder, the cache, npm or the public host."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from worldmodel._files import write_together

_VERSION = "1.30.0"
_PACKAGE = ("sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02V"
            "b7QmRMDs1SigqR4CXAfKYQ==")  # fmt: skip
FILES = {
    "ort.wasm.bundle.min.mjs":
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
    "ort-wasm-simd-threaded.wasm":
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
}  # fmt: skip
"""The files that the page loads, and their hashes."""
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{_VERSION}/dist/"


def find_runtime(given: Path | None) -> Path | None:
    """Find the folder with the runtime's files; the default is a cache that npm fills once.

    Returns: the folder; None where npm is missing or cannot reach its host.
    Raises: FileNotFoundError if a given folder lacks a file; ValueError if npm's package has
        another hash than the known one.
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
            raise ValueError(f"npm must give onnxruntime-web {_VERSION} with the known hash")
        with tarfile.open(packed) as package:
            found = {name: package.extractfile(f"package/dist/{name}") for name in FILES}
            cache.mkdir(parents=True, exist_ok=True)
            write_together({cache / n: file.read() for n, file in found.items() if file})
    return cache


def _hash(file: Path, kind: str) -> str:
    content = file.read_bytes() if file.is_file() else b""
    return f"{kind}-{base64.b64encode(hashlib.new(kind, content).digest()).decode()}"
