"""A real Chromium, which tells of everything that goes wrong in a page and of every request that it makes."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Visit:
    """A page that is open. `wrong`: what it complained of; `asked`: every address that it asked for."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self._note(said.type, said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # who goes to the next page does not wait for this one's icon
            self.wrong.append(f"failed: {request.url}, {request.failure}")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(text)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        assert "CI" not in os.environ, "there is no Chromium on the PATH, and nobody would notice"
        pytest.skip("there is no Chromium on the PATH")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=sandbox)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens an address: `visit(url, size=PHONE, theme="dark")`; it closes with the test."""
    contexts = []

    def open_page(url: str, *, size: tuple[int, int] = DESKTOP, theme: str = "light") -> Visit:
        viewport = {"width": size[0], "height": size[1]}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=theme))
        visit = Visit(contexts[-1].new_page())
        visit.page.goto(url)
        return visit

    yield open_page
    for context in contexts:
        context.close()
