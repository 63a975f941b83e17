"""`/docs` and `/problems` in a real browser: a person reads, logs in, places an order and sees it."""

import io
from collections.abc import Callable

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from orders_api.errors import PROBLEMS
from tests.client import Client
from tests.conftest import Server
from tests.pages.conftest import DESKTOP, PHONE, Visit

VIEWS = [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")]


def opened(visit: Callable[..., Visit], server: Server, **view: object) -> Visit:
    there = visit(f"{server.url}/docs", **view)
    expect(there.page.locator(".opblock").first).to_be_visible(timeout=20_000)
    return there


def log_in(page: Page, email: str, password: str) -> None:
    form = page.locator("#login")
    form.locator("[name=email]").fill(email)
    form.locator("[name=password]").fill(password)
    form.get_by_role("button").click()


def run(page: Page, operation: str, fill: dict[str, str]) -> Page:
    """Opens an operation, fills in parameters and executes it; returns what came back."""
    block = page.locator(f"[id$=-{operation}]")
    block.locator(".opblock-summary-control").click()
    for name, value in fill.items():
        block.locator(f"tr[data-param-name='{name}'] input").fill(value)
    block.locator("button.execute").click()
    return block.locator(".live-responses-table")


def brightness(page: Page) -> float:
    """Of the page's first pixel, from 0 to 255: what a person sees, whoever painted it."""
    png = page.screenshot(clip={"x": 0, "y": 0, "width": 1, "height": 1})
    return sum(Image.open(io.BytesIO(png)).convert("RGB").getpixel((0, 0))) / 3


@pytest.mark.parametrize(("size", "theme"), VIEWS)
def test_the_page_shows_every_operation_and_asks_nobody_else(
    visit: Callable[..., Visit], server: Server, size: tuple[int, int], theme: str
):
    there = opened(visit, server, size=size, theme=theme)
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    methods = sum(len([name for name in item if name != "parameters"]) for item in paths.values())
    expect(there.page.locator(".opblock")).to_have_count(methods)
    assert there.wrong == []
    assert {url for url in there.asked if not url.startswith((server.url, "data:"))} == set()
    assert (brightness(there.page) < 100) is (theme == "dark")
    assert there.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_a_person_logs_in_places_an_order_and_sees_it(visit: Callable[..., Visit], server: Server, alice: Client):
    there = opened(visit, server)
    log_in(there.page, alice.email, alice.password)
    expect(there.page.locator("#login output")).to_contain_text("Logged in as")
    assert there.page.locator("#login [name=password]").input_value() == ""

    placed = run(there.page, "place_order", {"Idempotency-Key": "from-the-page"})
    expect(placed).to_contain_text("201")
    (order,) = alice.get("/orders").json()["data"]
    expect(placed).to_contain_text(order["id"])

    seen = run(there.page, "read_order", {"order_id": order["id"]})
    expect(seen).to_contain_text("200")
    expect(seen).to_contain_text(order["id"])
    assert there.wrong == []


def test_a_wrong_password_is_said_where_it_was_typed(visit: Callable[..., Visit], server: Server, alice: Client):
    there = opened(visit, server)
    log_in(there.page, alice.email, "not the password")
    expect(there.page.locator("#login output")).to_contain_text("The email or the password is wrong")


def test_without_a_token_the_page_shows_the_refusal(visit: Callable[..., Visit], server: Server):
    there = opened(visit, server)
    expect(run(there.page, "list_orders", {})).to_contain_text("token_missing")


def test_nothing_that_a_page_is_made_to_show_can_run(visit: Callable[..., Visit], server: Server):
    there = opened(visit, server)
    with there.page.expect_console_message(lambda said: "Content Security Policy" in said.text):
        there.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    assert there.page.title() == "Orders API"


TAKES_GZIP = {"gzip": True, "GZIP": True, "br, gzip;q=0.5": True, "gzip;q=0": False, "identity, gzip;q=0.0": False}


@pytest.mark.parametrize("accepted", [*TAKES_GZIP, "notgzip", ""])
def test_gzip_is_for_who_takes_it_and_has_a_tag_of_its_own(server: Server, accepted: str):
    plain = httpx.get(f"{server.url}/docs", headers={"Accept-Encoding": ""})
    answer = httpx.get(f"{server.url}/docs", headers={"Accept-Encoding": accepted})
    zipped = TAKES_GZIP.get(accepted, False)
    assert (answer.headers.get("Content-Encoding") == "gzip") is zipped
    assert (answer.headers["ETag"] != plain.headers["ETag"]) is zipped
    assert answer.text == plain.text
    known = {"Accept-Encoding": accepted, "If-None-Match": answer.headers["ETag"]}
    assert httpx.get(f"{server.url}/docs", headers=known).status_code == 304


@pytest.mark.parametrize(("size", "theme"), VIEWS)
def test_every_problem_is_explained_on_a_page(
    visit: Callable[..., Visit], server: Server, size: tuple[int, int], theme: str
):
    there = visit(f"{server.url}/problems", size=size, theme=theme)
    expect(there.page.get_by_role("link")).to_have_count(len(PROBLEMS))
    assert (brightness(there.page) < 100) is (theme == "dark")
    there.page.get_by_role("link", name="order_not_editable").click()
    expect(there.page.get_by_role("heading", level=1)).to_have_text(PROBLEMS["order_not_editable"].title)
    expect(there.page.locator("body")).to_contain_text(PROBLEMS["order_not_editable"].cure)
    assert there.wrong == []
    assert there.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
