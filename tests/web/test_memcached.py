"""How requests share the one connection that their worker has to a memcached."""

import _socket
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from gevent.server import StreamServer

from orders_api.memcached import BREAKER_S, TIMEOUT_S, Memcached, Reply
from orders_api.settings import Settings

END = b"mn\r\n"  # of what travels together
SOON_S = 3 * TIMEOUT_S + 0.5  # what a busy machine may cost included
BUSY_S = 0.6
PATIENT_S = 5  # a busy machine is no lost server


_getaddrinfo = _socket.getaddrinfo


class Names:
    """The operating system's answers about names, for as long as a test lasts; kept back while `known` is not set."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.known = threading.Event()
        self.asked = 0

    def getaddrinfo(
        self, host: str, port: int, family: int, kind: int, protocol: int, flags: int
    ) -> list[tuple[object, ...]]:
        """In a thread of gevent's, but for an address."""
        if flags & socket.AI_NUMERICHOST:
            return _getaddrinfo(host, port, family, kind, protocol, flags)
        self.asked += 1
        self.known.wait(PATIENT_S)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = [address.split(":") for address in self.addresses]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port))) for host, port in found]


class Relay:
    """Stands between us and memcached, counts the trips, and keeps the answers back while `open` is not set."""

    def __init__(self, memcached: str) -> None:
        host, _, port = memcached.partition(":")
        self.memcached = host, int(port)
        self.trips = 0
        self.open = Event()
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self.server.start()

    def _serve(self, client: gevent.socket.socket, _: object) -> None:
        with gevent.socket.create_connection(self.memcached) as there:
            answering = gevent.spawn(self._answer, there, client)
            while asked := client.recv(65536):
                self.trips += asked.count(END)
                there.sendall(asked)
            answering.kill()

    def _answer(self, there: gevent.socket.socket, client: gevent.socket.socket) -> None:
        while answer := there.recv(65536):
            self.open.wait()
            client.sendall(answer)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    with gevent.Timeout(10):
        yield


@pytest.fixture
def relay(memcached: str) -> Iterator[Relay]:
    relay = Relay(memcached)
    yield relay
    relay.open.set()
    relay.server.stop()


@pytest.fixture
def there(relay: Relay) -> Memcached:
    memcached = opened(f"127.0.0.1:{relay.server.server_port}")
    wait_at_most(memcached, PATIENT_S)
    return memcached


def opened(address: str) -> Memcached:
    memcached = Memcached()
    keys = "k1:" + "A" * 43
    given = {"ENVIRONMENT": "development", "DATABASE_URL": "postgresql:///", "JWT_KEYS": keys}
    memcached.open(Settings.from_env({**given, "MEMCACHED_SERVERS": address}))
    return memcached


def wait_at_most(memcached: Memcached, seconds: float) -> None:
    """On connections that are yet to be opened."""
    for one in memcached._servers:
        one._connection.timeout = one._connection.connect_timeout = seconds


def remembered(memcached: Memcached, number: int) -> Reply:
    """Stores a value and asks for it, in one batch: the reply."""
    batch = memcached.batch()
    batch.set("home", f"key {number}", b"%d" % number, 10)
    reply = batch.get("home", f"key {number}")
    batch.run()
    return reply


def asking(
    relay: Relay, memcached: Memcached, count: int, then: Callable[[], None] = lambda: None
) -> list[gevent.Greenlet]:
    """So many greenlets: the first has asked and has no answer yet, the others wait. `then`: what it does with it."""

    def ask() -> Reply:
        reply = remembered(memcached, 0)
        then()
        return reply

    first = gevent.spawn(ask)
    while not relay.trips:
        gevent.sleep(0.001)
    others = [gevent.spawn(remembered, memcached, number) for number in range(1, count)]
    gevent.sleep(0.01)
    return [first, *others]


def test_what_is_asked_at_the_same_moment_travels_together(relay: Relay, there: Memcached):
    relay.open.set()
    greenlets = [gevent.spawn(remembered, there, number) for number in range(20)]

    assert [one.get(timeout=1).value for one in greenlets] == [b"%d" % number for number in range(20)]
    assert relay.trips == 1


def test_what_is_asked_while_an_answer_is_on_its_way_travels_together(relay: Relay, there: Memcached):
    greenlets = asking(relay, there, 20)
    relay.open.set()

    assert [one.get(timeout=1).value for one in greenlets] == [b"%d" % number for number in range(20)]
    assert relay.trips == 2


def test_who_asks_again_before_the_next_has_come_to_its_turn_goes_along(relay: Relay, there: Memcached):
    again = []
    greenlets = asking(relay, there, 3, lambda: again.append(remembered(there, 7).value))
    relay.open.set()

    assert [one.get(timeout=1).value for one in greenlets] == [b"0", b"1", b"2"]
    assert again == [b"7"]
    assert relay.trips == 2


def test_who_asks_alone_is_answered_alone(relay: Relay, there: Memcached):
    relay.open.set()

    assert [remembered(there, number).value for number in range(3)] == [b"0", b"1", b"2"]
    assert relay.trips == 3


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_one_that_is_killed_takes_no_other_s_answer_along(relay: Relay, there: Memcached, number: int):
    """The one that asks, the one that would be next, one in the middle, the last."""
    greenlets = asking(relay, there, 4)
    greenlets[number].kill()
    relay.open.set()

    left = [n for n in range(4) if n != number]
    assert [greenlets[n].get(timeout=1).value for n in left] == [b"%d" % n for n in left]
    assert remembered(there, 7).value == b"7"


def test_one_that_is_killed_when_its_turn_has_come_hands_it_on(relay: Relay, there: Memcached):
    def kill() -> None:
        # Told that it is its turn, the second has not run yet. Who dies goes to the hub, which has to find back to us.
        gevent.get_hub().loop.run_callback(gevent.getcurrent().switch)
        second.throw(gevent.GreenletExit)

    _, second, *others = asking(relay, there, 4, kill)
    relay.open.set()

    assert [one.get(timeout=1).value for one in others] == [b"2", b"3"]
    assert isinstance(second.value, gevent.GreenletExit)


def test_one_that_is_killed_before_it_asks_leaves_it_to_the_next(relay: Relay, there: Memcached):
    relay.open.set()
    greenlets = [gevent.spawn(remembered, there, number) for number in range(3)]
    gevent.spawn(greenlets[0].throw, gevent.GreenletExit)  # at once: `kill` would come when it asks already
    others = [one.get(timeout=1) for one in greenlets[1:]]

    assert isinstance(greenlets[0].value, gevent.GreenletExit)
    assert [reply.value for reply in others] == [b"1", b"2"]


def test_when_the_one_that_asks_for_all_is_killed_the_others_go_on_without_answers(relay: Relay, there: Memcached):
    _, second, *others = asking(relay, there, 4)
    relay.open.set()
    while relay.trips < 2:
        gevent.sleep(0)
    second.kill()

    assert [one.get(timeout=1).up for one in others] == [False, False]
    assert remembered(there, 7).value == b"7"


def test_all_who_wait_are_let_go_when_no_answer_comes(relay: Relay, there: Memcached):
    wait_at_most(there, TIMEOUT_S)
    greenlets = asking(relay, there, 20)

    assert [one.get(timeout=10 * TIMEOUT_S).up for one in greenlets] == [False] * 20  # one after the other: 2 s
    assert there.broken == 1
    wait_at_most(there, PATIENT_S)
    relay.open.set()
    gevent.sleep(BREAKER_S)
    assert remembered(there, 7).value == b"7"


def test_a_server_that_drips_its_answer_holds_nobody_longer_than_one_that_is_silent():
    def drip(client: gevent.socket.socket, _: object) -> None:
        with suppress(OSError):
            for _ in range(200):
                client.sendall(b"M")
                gevent.sleep(TIMEOUT_S / 4)

    server = StreamServer(("127.0.0.1", 0), drip)
    server.start()
    dripping, begun = opened(f"127.0.0.1:{server.server_port}"), time.monotonic()
    greenlets = [gevent.spawn(remembered, dripping, number) for number in range(3)]

    assert [one.get().up for one in greenlets] == [False] * 3
    assert time.monotonic() - begun < SOON_S
    assert dripping.broken == 1
    server.stop(timeout=0)


def test_a_worker_out_of_breath_takes_a_long_answer_that_came_meanwhile(memcached: str):
    values = [bytes([number]) * 900_000 for number in range(5)]
    there = opened(memcached)
    wait_at_most(there, PATIENT_S)
    batch = there.batch()
    for number, value in enumerate(values):
        batch.set("home", f"long {number}", value, 10)
    batch.run()
    wait_at_most(there, BUSY_S)

    def read() -> list[bytes | None]:
        batch = there.batch()
        replies = [batch.get("home", f"long {number}") for number in range(5)]
        batch.run()
        return [reply.value for reply in replies]

    def stop_the_worker() -> None:
        gevent.sleep(0)  # the question is sent now
        time.sleep(2 * BUSY_S)

    reading, _ = gevent.spawn(read), gevent.spawn(stop_the_worker)
    assert reading.get() == values


def test_a_slow_lookup_is_a_lost_server_and_who_comes_when_it_is_done_needs_none(
    memcached: str, monkeypatch: pytest.MonkeyPatch
):
    names = Names(memcached)
    monkeypatch.setattr(_socket, "getaddrinfo", names.getaddrinfo)
    there = opened("memcached.example:11211")
    for _ in range(2):
        begun = time.monotonic()
        assert not remembered(there, 0).up
        assert time.monotonic() - begun < SOON_S
        assert there.broken == 1
        gevent.sleep(BREAKER_S)
    names.known.set()
    wait_at_most(there, PATIENT_S)

    assert remembered(there, 7).value == b"7"
    assert names.asked == 1


def test_an_address_needs_no_lookup(memcached: str, monkeypatch: pytest.MonkeyPatch):
    names = Names()
    monkeypatch.setattr(_socket, "getaddrinfo", names.getaddrinfo)
    there = opened(memcached)
    wait_at_most(there, BUSY_S)
    assert remembered(there, 7).value == b"7"
    assert names.asked == 0


def test_a_name_that_is_unknown_is_a_lost_server_until_it_is_known(memcached: str, monkeypatch: pytest.MonkeyPatch):
    names = Names()
    names.known.set()
    monkeypatch.setattr(_socket, "getaddrinfo", names.getaddrinfo)
    there = opened("memcached.example:11211")
    wait_at_most(there, PATIENT_S)
    assert not remembered(there, 0).up
    assert there.broken == 1
    names.addresses = (memcached,)
    gevent.sleep(BREAKER_S)

    assert remembered(there, 7).value == b"7"


@pytest.mark.parametrize("first", ["refuses", "is silent"])
def test_when_the_first_address_of_a_name_does_not_answer_the_next_does(
    memcached: str, monkeypatch: pytest.MonkeyPatch, first: str
):
    with socket.socket() as lost, socket.socket() as other:
        lost.bind(("127.0.0.1", 0))
        address = lost.getsockname()
        if first == "is silent":
            lost.listen(0)
            other.connect(address)  # and nobody accepts it: there is no room for another
        names = Names(f"127.0.0.1:{address[1]}", memcached)
        names.known.set()
        monkeypatch.setattr(_socket, "getaddrinfo", names.getaddrinfo)
        there = opened("memcached.example:11211")
        wait_at_most(there, BUSY_S)

        assert remembered(there, 7).value == b"7"


@pytest.mark.parametrize("value", [b"MN", b"a value that ends in MN", b"MN\r\n", b"two\r\nlines"])
def test_what_could_be_taken_for_the_end_of_an_answer_is_not_sent(value: bytes):
    with pytest.raises(ValueError):
        Memcached().batch().set("home", "key", value, 10)


@pytest.mark.parametrize("value", [b"MN.", b"mn", b"M", b"one\nand another\r"])
def test_what_only_looks_like_the_end_of_an_answer_comes_back(memcached: str, value: bytes):
    there = opened(memcached)
    wait_at_most(there, PATIENT_S)
    batch = there.batch()
    batch.set("home", "key", value, 10)
    reply = batch.get("home", "key")
    batch.run()

    assert reply.value == value
