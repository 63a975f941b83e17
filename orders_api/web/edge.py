"""gunicorn's edge: what is too broken to reach the application gets a plain 400, and is heard out first; who does not
read what it asked for is cut off; who comes to a closed door is refused."""

import contextlib
import functools
import socket
import struct
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http.errors import (
    ConfigurationProblem,
    InvalidHeader,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    ParseException,
)
from gunicorn.workers.ggevent import GeventWorker

from orders_api import metrics
from orders_api.admission import in_flight

LINGER_S = 1.0
# To take an answer: gunicorn would wait for ever, and each such client kept a connection for good. The largest page
# there is takes 1.5 Mbit/s then.
SEND_DEADLINE_S = 20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: nothing is kept for a client that does not read
# Connections that a crowded worker accepts each time its loop comes round, after 50 ms or more. One by one, as gunicorn
# accepts them to give all workers alike, requests and health checks wait for seconds before anybody sees them.
ACCEPTED_BY_THE_CROWDED = 16
# gunicorn files these under parsing too, but they are no fault of the client's.
OURS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)


class Server(StreamServer):
    """gevent's, but for how many connections it accepts at a time."""

    @property
    def max_accept(self) -> int:
        return ACCEPTED_BY_THE_CROWDED if in_flight.crowded else 1


class Worker(GeventWorker):
    """gunicorn's gevent worker, but for its 414, 431 and 501: a client learns the same of each broken request."""

    def load_wsgi(self) -> None:
        """gunicorn calls this in the worker. Another application than ours has nothing to be said in its place."""
        super().load_wsgi()
        self.refusal = getattr(self.wsgi, "refusal", lambda _: None)

    def server_class(self, listener: Any, *, spawn: Any, **_: Any) -> StreamServer:
        """gunicorn calls this for a server of our own. A single worker shares with nobody, and accepts what comes."""
        kind = Server if self.cfg.workers > 1 else StreamServer
        return kind(listener, handle=functools.partial(self.handle, listener), spawn=spawn)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> Any:
        """gunicorn calls this for each request that it could read."""
        _check(req)
        # gevent's sendall takes it for all the bytes together: to read one now and then is of no use.
        sock.settimeout(SEND_DEADLINE_S)
        try:
            refusal = self.refusal(req) if self.alive else None  # the application tells that the connection ends
            if refusal is None:
                return super().handle_request(listener_name, req, sock, addr)
            sock.sendall(refusal)
        except TimeoutError:
            self.log.warning("Cut off a client that did not read its answer within %s s", SEND_DEADLINE_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            raise StopIteration from None  # as gunicorn ends a connection
        finally:
            sock.settimeout(None)  # gunicorn has a deadline of its own for the next request

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, OURS) or not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        metrics.broken_requests.inc()
        self.log.warning("Refused a request that is no HTTP: %s", type(exc).__name__)
        with contextlib.suppress(OSError):
            util.write_error(client, 400, "Bad Request", str(exc))
            _hear_out(client)


def _check(req: Any) -> None:
    """Raises InvalidHeader where another server could read another request.

    HTTP/1.1 without a Host (RFC 9112, 3.2); two lines with a key, which WSGI would join to one that nobody sent: sent
    again by a way that tells them apart, the order would be placed twice.
    """
    names = [name for name, _ in req.headers]
    if "HOST" not in names and req.version >= (1, 1):
        raise InvalidHeader("HOST")
    if names.count("IDEMPOTENCY-KEY") > 1:
        raise InvalidHeader("IDEMPOTENCY-KEY")


def _hear_out(client: socket.socket) -> None:
    """Closing on bytes that were never read resets the connection, and can take the answer with it (RFC 9112, 9.6)."""
    client.shutdown(socket.SHUT_WR)
    with gevent.Timeout(LINGER_S, False):
        while client.recv(65536):
            pass
