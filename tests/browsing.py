"""Fixtures for tests in a real browser: pages made by `squeezebert web`, a server, Chromium. Used by tests/web.

They need npm (for the page's engine, once), Playwright and Chromium, and fail without: `make test-web` has them.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from squeezebert.web.engine import find_engine
from squeezebert.web.site import write_site

# Times out where a page hangs; generous for a busy machine
PATIENCE_MS = 60_000


class Server:
    """A folder on a free port of this machine, with what was asked of it."""

    def __init__(self, folder: Path, port: int = 0, headers: dict[str, str] | None = None) -> None:
        asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def end_headers(self) -> None:
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                super().end_headers()

            def log_message(self, *parts: Any) -> None:
                asked.append(self.path)

        self.asked = asked
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(Handler, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="session")
def engine() -> Path:
    """The page's engine, from npm or kept from an earlier run."""
    return find_engine(None, print)


@pytest.fixture(scope="session")
def launch() -> Iterator[Any]:
    """A function that starts a headless Chromium, the system's or the one that CHROMIUM names."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no Chromium: install Debian's package chromium, or set CHROMIUM to the program"
    # No sandbox: root, as in a container, has none; nothing but this machine is reached
    always = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        yield lambda *more: playwright.chromium.launch(executable_path=program, args=[*always, *more])


@pytest.fixture(scope="session")
def chromium(launch: Any) -> Iterator[Any]:
    """Chromium as it comes."""
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def make_site(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes the page of an exported folder, once for each."""

    @functools.cache
    def made(folder: Path, **options: Any) -> Path:
        place = tmp_path_factory.mktemp("sites") / "site"
        write_site(folder, place, engine, **options)
        return place

    return made


@pytest.fixture
def visit(chromium: Any, make_site: Any) -> Iterator[Any]:
    """A function that opens the page of an exported folder to a new visitor; gives page, server, what went wrong."""
    opened: list[Any] = []

    def open_page(folder: Path, query: str = "", headers: Any = None, options: Any = None, **context: Any) -> Any:
        server = Server(make_site(folder, **(options or {})), headers=headers)
        visitor = chromium.new_context(**context)
        page = visitor.new_page()
        page.set_default_timeout(PATIENCE_MS)
        problems: list[str] = []
        requests: list[str] = []
        visitor.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None)
        page.goto(server.address + query)
        opened.append((visitor, server))
        return SimpleNamespace(page=page, server=server, problems=problems, requests=requests, visitor=visitor)

    yield open_page
    for visitor, server in opened:
        visitor.close()
        server.close()


def until(page: Any, condition: str, patience_ms: float = PATIENCE_MS) -> None:
    """Wait for a JavaScript condition. Playwright's own way evaluates strings, which the page's policy forbids."""
    ends = time.monotonic() + patience_ms / 1000
    while not page.evaluate(condition):
        problem = page.inner_text("#problem") if page.is_visible("#problem") else ""
        assert time.monotonic() < ends and not problem, f"{condition}: {problem or page.inner_text('main')}"
        page.wait_for_timeout(50)


def loaded(page: Any) -> None:
    """Wait until a page has measured its files and kept them."""
    until(page, "document.getElementById('offline').textContent !== ''")
    until(page, "document.getElementById('status').textContent === 'Ready.'")


def ask(page: Any, text: str, second: str | None = None) -> dict[str, Any]:
    """Write a text into the page, press its button, and return what it shows."""
    page.evaluate(
        """([text, second]) => {
          document.getElementById("text").value = text;
          if (second !== null) document.getElementById("text-pair").value = second;
          document.getElementById("summary").textContent = "";
        }""",
        [text, second],
    )
    page.click("#ask")
    return shown(page)


def shown(page: Any) -> dict[str, Any]:
    """Wait for an answer and return it: summary, notes, and for each label its probability and whether it is given."""
    until(page, "document.getElementById('summary').textContent !== ''")
    found: dict[str, Any] = page.evaluate(
        """() => {
          const rows = [...document.querySelectorAll("#rows tr")];
          const summary = document.getElementById("summary");
          return {
            summary: summary.textContent,
            value: summary.dataset.value === undefined ? null : Number(summary.dataset.value),
            notes: document.getElementById("notes").textContent,
            probabilities: Object.fromEntries(
              rows.map((row) => [row.cells[0].textContent, Number(row.cells[1].dataset.probability)]),
            ),
            given: rows.filter((row) => row.classList.contains("given")).map((row) => row.cells[0].textContent),
          };
        }"""
    )
    return found


def choose(page: Any, form: str) -> None:
    """Have one of the model files answer."""
    page.check(f"#choice-{form}")
    until(page, f"document.getElementById('status').textContent === 'Ready. {form} answers.'")
