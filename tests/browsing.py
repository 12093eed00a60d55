"""Fixtures for tests in a real browser: pages made by `squeezebert web`, a server, Chromium. Used by tests/web.

They need npm (for the page's engine, once), Playwright and Chromium, and fail without: `make test-web` has them.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browser_steps import PATIENCE_MS, Server
from squeezebert.web.engine import find_engine
from squeezebert.web.site import write_site


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
def browse(chromium: Any) -> Iterator[Any]:
    """A function that serves a site and opens it to a new visitor; gives page, server, what went wrong."""
    opened: list[Any] = []

    def open_page(site: Path, query: str = "", headers: Any = None, redirects: Any = None, **context: Any) -> Any:
        server = Server(site, headers=headers, redirects=redirects)
        visitor = chromium.new_context(**context)
        opened.append((visitor, server))
        page = visitor.new_page()
        page.set_default_timeout(PATIENCE_MS)
        problems: list[str] = []
        requests: list[str] = []
        visitor.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("console", lambda told: problems.append(told.text) if told.type in ("error", "warning") else None)
        page.goto(server.address + query)
        return SimpleNamespace(page=page, server=server, problems=problems, requests=requests, visitor=visitor)

    yield open_page
    for visitor, server in opened:
        visitor.close()
        server.close()


@pytest.fixture
def visit(browse: Any, make_site: Any) -> Any:
    """The same of an exported folder's page, which is made with `options`."""

    def open_page(folder: Path, query: str = "", headers: Any = None, options: Any = None, **context: Any) -> Any:
        return browse(make_site(folder, **(options or {})), query, headers, **context)

    return open_page
