"""The way to memcached: pipelined meta commands, one connection a server and process, behind a circuit breaker.

Everything a request asks of one server travels in one round trip (memcached's protocol.txt, "Meta Commands"): of a
cached read's time the round trips were the larger part.
"""

import functools
import hashlib
import time
from contextlib import suppress
from socket import AI_NUMERICHOST, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, gaierror
from typing import Any

import gevent
import gevent.socket
from gevent import monkey
from gevent.event import Event
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

from orders_api import metrics
from orders_api.reporting import recording, span
from orders_api.settings import Settings
from orders_api.sockets import readable

# To connect, and of a trip, of all its pieces together: else a server that drips would hold everybody.
TIMEOUT_S = 0.1
# A dead server costs one timeout, not one a request: for this long after a failure nobody asks it.
BREAKER_S = 1.0
RECEIVED_BYTES = 1 << 16
KEY_VERSION = "v2"
REMEMBERED_KEYS, REMEMBERED_CHARACTERS = 8192, 128
DOWN = (OSError, MemcacheError, ValueError, IndexError)  # the last two: an answer that is none
_getaddrinfo = monkey.get_original("socket", "getaddrinfo")
_END = b"MN\r\n"  # what memcached answers to `mn`, which ends each batch


class Reply:
    """What memcached answered to one command. Until the batch has run, and when it could not: `up` is False."""

    __slots__ = ("code", "flags", "up", "value")

    def __init__(self) -> None:
        self.up = False
        self.code = b""
        self.flags: list[bytes] = []
        self.value: bytes | None = None

    @property
    def stored(self) -> bool:
        return self.code == b"HD"

    def number(self, flag: bytes) -> int:
        """The number that came back with a return flag: `t` seconds to live, `c` the CAS value."""
        for text in self.flags:
            if text[:1] == flag:
                return int(text[1:])
        raise ValueError("the flag was not asked for")


class _Connection(Client):
    """pymemcache's connection. Its own `raw_command` loses all but the last piece of a long answer (4.0.0)."""

    _lookup: gevent.Greenlet | None = None

    def exchange(self, commands: list[bytes]) -> bytes:
        """Sends the commands and reads until all are answered. Raises one of DOWN, and is closed then."""
        try:
            if self.sock is None:
                self._connect()
            deadline = time.monotonic() + self.timeout
            self.sock.settimeout(self.timeout)
            question = b"\r\n".join([*commands, b"mn\r\n"])
            if (sent := self.sock.send(question)) < len(question):  # sendall alone asks for the buffer's size each time
                self.sock.sendall(question[sent:])
            answer = self._receive(b"", deadline)
            if not answer.endswith(_END) and readable(self.sock.fileno()):
                # In a worker out of breath the answer may be there, and we late: to call memcached down then would
                # send everybody to the database, and make the worker slower still.
                answer = self._receive(answer, time.monotonic() + self.timeout)
            if not answer.endswith(_END):
                raise TimeoutError
            return answer
        except BaseException:  # what is not read now would be taken for the next answer
            self.close()
            raise

    def _receive(self, answer: bytes, deadline: float) -> bytes:
        """`answer` with what has come of the rest: all of it, or what there is when the time is up."""
        while not answer.endswith(_END) and (left_s := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left_s)
            try:
                piece = self.sock.recv(RECEIVED_BYTES)
            except TimeoutError:
                break
            if not piece:
                raise MemcacheUnexpectedCloseError
            answer += piece
        return answer

    def _connect(self) -> None:
        """Each address of the name has its share of `connect_timeout`, less the lookup. pymemcache tries but one."""
        deadline = time.monotonic() + self.connect_timeout
        addresses = self._addresses()
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            try:
                self.sock = gevent.socket.socket(family, kind, protocol)
                self.sock.settimeout(max(0.0, deadline - time.monotonic()) / (len(addresses) - tried))
                self.sock.connect(address)
                self.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                return
            except OSError:
                self.close()
                if tried == len(addresses) - 1:
                    raise

    def _addresses(self) -> list[tuple[Any, ...]]:
        """A lookup has no timeout, and a thread of the few there are: who comes later takes up the one under way."""
        with suppress(gaierror):  # an address asks nobody: no thread, which a busy machine may be slow to give
            return _getaddrinfo(*self.server, type=SOCK_STREAM, flags=AI_NUMERICHOST)
        if self._lookup is None:
            self._lookup = gevent.spawn(gevent.socket.getaddrinfo, *self.server, type=SOCK_STREAM)
        self._lookup.join(self.connect_timeout)
        if not self._lookup.ready():
            raise TimeoutError
        lookup, self._lookup = self._lookup, None
        return lookup.get()


class Server:
    """One server: one connection a process, and a circuit breaker in front of it.

    What all requests ask while an answer is on its way travels together when it has come: under load one system call
    serves many. The first of them sends it and reads the answer, in its own greenlet: to start one for the trip cost
    more than the trip, as CPython maps memory for each one's frames.
    """

    def __init__(self, host: str, port: int) -> None:
        self.name = f"{host}:{port}".encode()
        timeouts = {"connect_timeout": TIMEOUT_S, "timeout": TIMEOUT_S}
        self._connection = _Connection((host, port), **timeouts)
        self._closed_until = 0.0
        self._asking = False
        self._waiting: list[Questions] = []

    @property
    def broken(self) -> bool:
        """Whether the breaker is open: nobody asks it now."""
        return time.monotonic() < self._closed_until

    def ask(self, questions: "Questions") -> None:
        """Fills the replies; leaves them as they are when the server can't be asked."""
        if self.broken:
            return
        self._waiting.append(questions)
        with span("cache", questions.summary() if recording() else ""):
            self._wait(questions)
            if questions.asks:
                self._ask_for_all()

    def _wait(self, questions: "Questions") -> None:
        """Until another has asked for us, or it is ours to ask for all who wait."""
        try:
            if self._asking:
                questions.wait()
            else:
                self._asking = questions.asks = True
                gevent.sleep(0)  # what others ask at this moment goes along
        except BaseException:
            if questions in self._waiting:
                self._waiting.remove(questions)
            if questions.asks:
                self._hand_on()
            raise

    def _ask_for_all(self) -> None:
        together, self._waiting = self._waiting, []
        try:
            self._exchange(together)
        finally:  # killed, it leaves the others without answers, as they are when memcached is down
            for questions in together:
                questions.go_on(asks=False)
            self._hand_on()

    def _hand_on(self) -> None:
        self._asking = bool(self._waiting)
        if self._waiting:
            self._waiting[0].go_on(asks=True)

    def _exchange(self, together: "list[Questions]") -> None:
        if self.broken:
            return
        try:
            answer = self._connection.exchange([command for questions in together for command in questions.commands])
            _parse(answer, [reply for questions in together for reply in questions.replies])
        except DOWN:
            self._connection.close()
            self._closed_until = time.monotonic() + BREAKER_S
            metrics.memcached_failures.labels(self.name.decode()).inc()


class Questions:
    """What one batch asks of one server."""

    __slots__ = ("_turn", "asks", "commands", "replies")

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.replies: list[Reply] = []
        self.asks = False  # for all who wait
        self._turn: Event | None = None  # most wait for nobody

    def wait(self) -> None:
        """Until somebody calls `go_on`."""
        self._turn = Event()
        self._turn.wait()

    def go_on(self, *, asks: bool) -> None:
        self.asks = asks
        if self._turn is not None:
            self._turn.set()

    def summary(self) -> str:
        """The commands by their names and the beginnings of their hashed keys, without what is stored."""
        return ", ".join(command.partition(b"\r\n")[0][:11].decode() for command in self.commands)


def _parse(answer: bytes, replies: list[Reply]) -> None:
    start = 0
    for reply in replies:
        end = answer.index(b"\r\n", start)
        reply.code, *reply.flags = answer[start:end].split(b" ")
        reply.up = True
        start = end + 2
        if reply.code == b"VA":
            end = start + int(reply.flags[0])
            reply.value = answer[start:end]
            start = end + 2


class Batch:
    """Commands that travel together. Each returns a Reply at once; `run()` fills them all."""

    __slots__ = ("_memcached", "_questions")

    def __init__(self, memcached: "Memcached") -> None:
        self._memcached = memcached
        self._questions: dict[Server, Questions] = {}

    def ask(self, home: str, command: bytes) -> Reply:
        """A command for the server that is `home` to a user or an address: what belongs together is kept together."""
        reply = Reply()
        server = self._memcached.server_of(home)
        if server is not None:
            questions = self._questions.get(server)
            if questions is None:
                questions = self._questions[server] = Questions()
            questions.commands.append(command)
            questions.replies.append(reply)
        return reply

    def get(self, home: str, key: str) -> Reply:
        return self.ask(home, b"mg %b v" % hashed(key))

    def count(self, home: str, key: str, window_s: int) -> Reply:
        """Adds 1 to a counter that lives `window_s` seconds from its first hit; `t` says how many are left."""
        return self.ask(home, b"ma %b N%d J1 v t" % (hashed(key), window_s))

    def take_back(self, home: str, key: str) -> Reply:
        """Takes 1 from a counter, if it is still there."""
        return self.ask(home, b"ma %b MD" % hashed(key))

    def set(self, home: str, key: str, value: bytes, ttl_s: int, flags: bytes = b"") -> Reply:
        """`flags`: `ME` stores only where nothing is, `C<cas>` only over what has that CAS value; `c` returns it."""
        if not storable(value):
            raise ValueError("it could be taken for the end of the answer")
        return self.ask(home, b"ms %b %d T%d %b\r\n%b" % (hashed(key), len(value), ttl_s, flags, value))

    def delete(self, home: str, key: str, cas: int) -> Reply:
        """Deletes what still has this CAS value."""
        return self.ask(home, b"md %b C%d" % (hashed(key), cas))

    def run(self) -> None:
        for server, questions in self._questions.items():
            server.ask(questions)
        self._questions = {}


class Memcached:
    """The servers of one deployment. A lost server's keys don't move to another: what it knew might come back."""

    def __init__(self) -> None:
        self._servers: list[Server] = []

    def open(self, settings: Settings) -> None:
        self._servers = [Server(host, port) for host, port in settings.memcached_servers]

    def batch(self) -> Batch:
        return Batch(self)

    def server_of(self, home: str) -> Server | None:
        """By rendezvous hashing (Thaler and Ravishankar, 1998): the same on every host, whatever the order."""
        if len(self._servers) < 2:
            return self._servers[0] if self._servers else None
        return max(self._servers, key=functools.partial(_weight, home.encode()))

    @property
    def broken(self) -> int:
        """How many servers nobody asks now."""
        return sum(server.broken for server in self._servers)

    def ping(self) -> bool:
        """Whether every server takes a value."""
        questions = [Questions() for _ in self._servers]
        for server, question in zip(self._servers, questions, strict=True):
            question.commands.append(b"ms %b 1 T10\r\n1" % hashed("ping"))
            question.replies.append(Reply())
            server.ask(question)
        return bool(questions) and all(question.replies[0].stored for question in questions)


def _weight(home: bytes, server: Server) -> bytes:
    return hashlib.sha256(server.name + b"|" + home).digest()


memcached = Memcached()


def storable(value: bytes) -> bool:
    """Whether a piece of an answer that stops in the value, or right behind it, can't be taken for the answer's end."""
    return b"\r\n" not in value and not value.endswith(b"MN")


def hashed(key: str) -> bytes:
    """Keys of one length, whatever a client put into them, that another version of us never reads."""
    return _remembered(key) if len(key) <= REMEMBERED_CHARACTERS else _hashed(key)


def _hashed(key: str) -> bytes:
    return hashlib.sha256(f"{KEY_VERSION}:{key}".encode()).hexdigest().encode()


# Five of the six keys of a cached read are of its user or address, and come again with the next one.
_remembered = functools.lru_cache(REMEMBERED_KEYS)(_hashed)
