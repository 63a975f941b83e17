"""memcached stopped while clients are at work: no answer changes."""

from collections.abc import Callable
from typing import Any

from orders_api.dev import EmbeddedMemcached
from tests.client import LAMP, Client, assert_problem


def test_a_cache_that_stops_in_the_middle_changes_no_answer(
    serve: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = serve(MEMCACHED_SERVERS=own_memcached[1])
    alice = Client(server.url).register().login()
    first = alice.place(LAMP, key="before")
    before = [alice.get(path) for path in ("/auth/me", "/orders", first.headers["Location"])]

    own_memcached[0].stop()

    # Both workers meet the loss: more requests than one of them would be handed.
    for _ in range(10):
        after = [alice.get(path) for path in ("/auth/me", "/orders", first.headers["Location"])]
        assert [(a.status_code, a.content) for a in after] == [(b.status_code, b.content) for b in before]
    again = alice.place(LAMP, key="before")
    assert (again.status_code, again.content) == (201, first.content)
    assert alice.place(LAMP).status_code == 201
    alice.close()


def test_a_session_ends_with_the_logout_when_the_cache_is_gone(
    serve: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = serve(MEMCACHED_SERVERS=own_memcached[1])
    alice = Client(server.url).register().login()
    own_memcached[0].stop()

    assert alice.post("/auth/logout").status_code == 204
    assert_problem(alice.get("/auth/me"), 401, "token_invalid")
    alice.close()
