"""`worldmodel view`: write the folder of a page on which a run plans, and serve it."""

import shutil
import webbrowser
from contextlib import ExitStack, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

from worldmodel._extras import need
from worldmodel.apps.folder import locked, write_json
from worldmodel.apps.machine import machine, versions
from worldmodel.apps.progress import say
from worldmodel.apps.report import write_index
from worldmodel.apps.runs import open_run
from worldmodel.apps.settings import PlannerSettings, ViewSettings
from worldmodel.apps.view.graphs import write_graphs
from worldmodel.apps.view.material import describe_model, describe_world, gather, write_episodes
from worldmodel.apps.view.runtime import CDN, FILES, find_runtime
from worldmodel.checkpoint import digest
from worldmodel.encoder import ConvEncoder, ViTEncoder

_MARK, _WITHOUT = "view.json", "without-sigreg"
_HORIZONS = [3, 5, 8]
_KEPT_EPISODES = 6
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


def run(settings: ViewSettings) -> int:
    """Write the page's folder and serve it until Ctrl-C.

    Raises: FileNotFoundError or ValueError if the run, the data or the runtime cannot be read;
        FileExistsError if the folder is not a page; ImportError if the export extra is missing.
    """
    out = settings.out or settings.run / "view"
    for package in ("onnxruntime", "onnxscript"):
        need(package, "export", "the page")
    if not settings.run.exists() and len(settings.run.parts) != 2:
        raise ValueError(f"RUN must be a folder or an owner/name of the hub, got {settings.run}")
    if not settings.out and not settings.run.is_dir():
        raise ValueError(f"--out must be given for a model of the hub, {settings.run} is no folder")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out must be a folder, got the file {out}")
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise FileExistsError(f"--out must be new, or a page of worldmodel view, got {out}")
    draft = out.with_name(f"{out.name}.unfinished")
    with ExitStack() as held:
        # Take the port first, because the work lasts minutes.
        server = held.enter_context(_server(out, settings.port)) if settings.serve else None
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.with_name(f"{out.name}.lock"), str(out)):
            shutil.rmtree(draft, ignore_errors=True)
            try:
                write(settings, draft)
                shutil.rmtree(out, ignore_errors=True)
                draft.replace(out)
                if out.parent.resolve() == settings.run.resolve():
                    write_index(settings.run)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        say(f"{out / 'index.html'}: {size / 1e6:.1f} MB, works on any static host")
        if server is not None:
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            say(f"{address} (Ctrl-C stops the server)")
            with suppress(KeyboardInterrupt):
                if settings.open:
                    webbrowser.open(address)
                server.serve_forever()
    return 0


def write(settings: ViewSettings, out: Path) -> None:
    """Write the page of a run, with its run without SIGReg if there is one, into a new folder."""
    found = open_run(settings.run, data=settings.data)
    encoder = found.world_model.encoder
    if not isinstance(encoder, ViTEncoder | ConvEncoder):
        raise ValueError(f"RUN must encode one picture, it has a {type(encoder).__name__}")
    planner = PlannerSettings(history=1)  # as the page plans
    runtime = find_runtime(settings.runtime)
    if runtime is None:
        say("no npm and no --runtime: the page will fetch onnxruntime-web from cdn.jsdelivr.net")
    material, pairs = gather(found, settings)
    with resources.as_file(resources.files("worldmodel.apps.view") / "page") as page:
        shutil.copytree(page, out, ignore=shutil.ignore_patterns("__pycache__"))
    models = list[dict[str, object]]()
    told: dict[str, object] = {
        "world": describe_world(found, material, pairs, planner),
        "models": models,
        "horizons": _HORIZONS,
        "runtime": {"at": "runtime/" if runtime else CDN, "files": FILES},
        "machine": machine("cpu"),
        "versions": versions(),
    }
    runs = {"model": found}
    if (settings.run / _WITHOUT).is_dir():
        runs["without"] = open_run(settings.run / _WITHOUT, data=settings.data)
    for name, run in runs.items():
        say(f"{run.folder}: measuring it, then writing and checking its graphs: a minute or two")
        measured, probe = describe_model(run, material, pairs, planner)
        (out / name).mkdir()
        write_graphs(run.world_model, probe, out / name, _HORIZONS)
        models.append({"folder": name, "weights": digest(run.world_model), **measured})
    if material.world is None:
        told["episodes"] = write_episodes(material.test, _KEPT_EPISODES, out)
    if runtime is not None:
        (out / "runtime").mkdir()
        for name in FILES:
            shutil.copyfile(runtime / name, out / "runtime" / name)
    write_json(told, out / _MARK)


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the headers that let a browser use threads."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | _TYPES

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder, only for this machine; OSError if the port is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise OSError(f"--port must be free, got {port}: {error.strerror}") from error
