"""The forms of a model file in a browser's engine: latency of fp32 and of each int8 form, with one thread and several.

python benchmarks/browser.py [--models ...] [--threads 1 2] [--runs 7] [--output benchmarks/results/browser.json]

onnxruntime-web in headless Chromium, in a Web Worker, batch 1, random weights. The forms of a model run in turns, in
bursts, each after one run that is not timed. Needs npm (for the engine, once), Chromium (CHROMIUM names another one)
and `pip install 'squeezebert[browser]'`. Static ranges are of made-up text: they say nothing of accuracy.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import sync_playwright
from squeeze_controls import SHAPES
from squeeze_latency import config

from squeezebert.benchmark.baselines import write_baseline
from squeezebert.benchmark.latency import made_up_inputs
from squeezebert.benchmark.named import NAMES, write_named
from squeezebert.export.int8 import Int8File
from squeezebert.export.options import ExportOptions
from squeezebert.files.machine import describe_machine, package_versions
from squeezebert.files.stopwatch import summarise
from squeezebert.web.engine import engine_versions, find_engine
from squeezebert.web.site import HEADERS

SQUEEZED = "minilm-l6 squeezed"
MODELS = (SQUEEZED, "minilm-l6", "squeezebert", "bert-base")
# What the exporter writes: its options by the form's name
FORMS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8, 4-bit words": {"embeddings": "int4"},
    "int8, static ranges": {"activations": "static"},
}
LENGTHS = (32, 128)
# Chromium gives pages shared memory, and so threads, where these are sent
ISOLATION = {name: value for name, value in HEADERS.items() if name.startswith("Cross-Origin")}


def write_forms(name: str, folder: Path) -> dict[str, Path]:
    """Write a model of random weights in every form; return form -> file."""
    folder.mkdir()
    if name == SQUEEZED:
        write_baseline(config(SHAPES["low rank"]), folder)
    else:
        write_named(name, folder)
    files = {"fp32": folder / "model.onnx"}
    feeds = [made_up_inputs(1, length) for length in (16, 64, 128)]
    for number, (form, fields) in enumerate(FORMS.items()):
        target = folder / f"form{number}.onnx"
        Int8File(files["fp32"], target, ExportOptions(threads=1, **fields), feeds).write()
        files[form] = target
    return files


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, isolated; gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in ISOLATION.items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *parts: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def time_in_browser(browser: Any, address: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run browser_worker.js on a job in a page of its own; returns form -> tokens -> times in ms, and the threads."""
    page = browser.new_page()
    page.goto(address + "index.html")
    page.expose_function("told", lambda line: print(f"  {line}", end="\r", flush=True))
    found = page.evaluate(
        """(job) => new Promise((resolve) => {
          const worker = new Worker("browser_worker.js", { type: "module" });
          worker.onerror = (event) => resolve({ error: event.message });
          worker.onmessage = ({ data }) => (data.progress ? told(data.progress) : resolve(data));
          worker.postMessage(job);
        })""",
        job,
    )
    page.close()
    if "error" in found:
        raise SystemExit(f"the browser could not run it: {found['error']}")
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=(SQUEEZED, *NAMES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--burst", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "browser.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        raise SystemExit("no Chromium: install Debian's package chromium, or set CHROMIUM to the program")
    rows = []
    with tempfile.TemporaryDirectory() as work, served(Path(work)) as address, sync_playwright() as playwright:
        root = Path(work)
        (root / "engine").symlink_to(find_engine(None, print) / "onnxruntime-web" / "dist")
        shutil.copyfile(Path(__file__).with_name("browser_worker.js"), root / "browser_worker.js")
        (root / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">', encoding="utf-8")
        # No sandbox: root, as in a container, has none; nothing but this machine is reached
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for number, name in enumerate(options.models):
            folder = root / f"model{number}"
            files = write_forms(name, folder)
            addresses = {form: f"/{folder.name}/{file.name}" for form, file in files.items()}
            for threads in options.threads:
                job = {"files": addresses, "lengths": LENGTHS, "threads": threads}
                found = time_in_browser(browser, address, job | {"runs": options.runs, "burst": options.burst})
                timings = {
                    form: {tokens: summarise(times) for tokens, times in by_length.items()}
                    for form, by_length in found["times"].items()
                }
                for form, file in files.items():
                    row: dict[str, Any] = {"model": name, "form": form, "threads": found["threads"]}
                    row["megabytes"] = file.stat().st_size / 1e6
                    row["latency"] = {
                        tokens: own.to_dict() | {"ratio": timings["fp32"][tokens].median_ms / own.median_ms}
                        for tokens, own in timings[form].items()
                    }
                    rows.append(row)
                    shown = {
                        tokens: f"{one['median_ms']:.1f} ms, {one['ratio']:.2f}x"
                        for tokens, one in row["latency"].items()
                    }
                    print(name, form, f"{found['threads']} threads", shown, flush=True)
            shutil.rmtree(folder)
        version = browser.version
        browser.close()
    record = {
        "command": "python " + shlex.join(["benchmarks/browser.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "versions": package_versions() | engine_versions() | {"chromium": version},
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
