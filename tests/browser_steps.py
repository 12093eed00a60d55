"""What a visitor does on a page made by `squeezebert web`, and the server that the page comes from. For tests/web."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from pathlib import Path
from typing import Any

# Times out where a page hangs; generous for a busy machine
PATIENCE_MS = 60_000


class Server:
    """A folder on a free port of this machine, with what was asked of it."""

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        headers: dict[str, str] | None = None,
        redirects: dict[str, str] | None = None,
    ) -> None:
        asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def end_headers(self) -> None:
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                super().end_headers()

            def do_GET(self) -> None:
                if (place := (redirects or {}).get(self.path)) is None:
                    super().do_GET()
                    return
                self.send_response(301)
                self.send_header("Location", place)
                self.end_headers()

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
