"""The playground in a real Chromium: its windows, and what tests do in them."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playground_server import Server
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from multimodal_gen.postprocess.images import encode_image

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

VIEWS: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "desktop": (1440, 900, "light"),
    "phone": (390, 844, "dark"),
    "dark desktop": (1440, 900, "dark"),
    "light phone": (390, 844, "light"),
}
NO_CHROMIUM = "no Chromium on the PATH: `apt-get install chromium` as root, or your system's way"
MUST_RUN = "CI_NEEDS_BROWSER" in os.environ
"""What needs a browser fails without one."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not MUST_RUN, reason=NO_CHROMIUM)
in_each_view = pytest.mark.parametrize(
    "view",
    [
        "desktop",
        "phone",
        pytest.param("dark desktop", marks=pytest.mark.slow),
        pytest.param("light phone", marks=pytest.mark.slow),
    ],
)

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Console:
    """What the page complains of."""

    def __init__(self) -> None:
        self.expected: tuple[str, ...] = ()
        self.seen: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.seen.append(str(error)))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.seen.append(message.text)

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.seen if not any(part in text for part in self.expected)]


@pytest.fixture
def console() -> Iterator[Console]:
    console = Console()
    yield console
    assert not console.unexpected


StartServer = Callable[..., Server]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"))
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """One without jobs."""
    yield shared_server
    shared_server.clear()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server of the test's own."""
    servers: list[Server] = []

    def start(**given: Any) -> Server:
        servers.append(Server(tmp_path, **given))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def view() -> str:
    """The window's size and colours; see `in_each_view`."""
    return "desktop"


@pytest.fixture
def page(
    browser: Browser, console: Console, server: Server, start_server: StartServer, view: str
) -> Iterator[Page]:
    """A window, closed before any server is cleared or stopped: it might ask for what is gone.
    What its console shows must be expected."""
    width, height, scheme = VIEWS[view]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=width < 500
    )
    context.set_default_timeout(30_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    console.watch(page)
    yield page
    context.close()


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.locator("#make")).to_be_enabled()
    return page


def make(page: Page, server: Server, prompt: str, **fields: Any) -> None:
    """Ask for pictures, and see the engine get them."""
    for name, value in {"prompt": prompt, **fields}.items():
        page.fill(f"#{name}", str(value))
    page.keyboard.press("Control+Enter")
    assert server.has(prompt, int(fields.get("n", 1)))


def made(page: Page, server: Server, prompt: str = "a red heart", **fields: Any) -> None:
    """Pictures that are in the gallery."""
    before = page.locator("#gallery li").count()
    make(page, server, prompt, **fields)
    server.finish(prompt)
    expect(page.locator("#gallery li")).to_have_count(before + int(fields.get("n", 1)))


def violations(page: Page) -> list[str]:
    """Rules of axe (WCAG and good practice) that the page breaks as it is, and where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        for node in rule["nodes"]
    ]


def drop(page: Page, where: str, data: bytes, name: str, kind: str) -> None:
    script = """([data, name, type]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const dropped = new DataTransfer();
        dropped.items.add(new File([bytes], name, {type}));
        return dropped;
    }"""
    given = [base64.b64encode(data).decode(), name, kind]
    transfer = page.evaluate_handle(script, given)
    for event in ("dragover", "drop"):
        page.dispatch_event(where, event, {"dataTransfer": transfer})


def png(colour: int = 100, size: int = 32) -> bytes:
    return encode_image(np.full((size, size, 3), colour, np.uint8), "png")


def value(page: Page, name: str) -> str:
    return page.input_value(f"#{name}")
