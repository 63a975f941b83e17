"""One attempt: a signed POST to an address that was checked, cut after 15 seconds, following nothing."""

import contextlib
import http.client
import secrets
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult

import orjson

from orders_api.payments import signatures
from orders_api.values import format_time, now
from orders_api.webhooks import addresses
from orders_api.webhooks.dispatch import Job, Result

TIMEOUT_S, CONNECT_S = 15, 5
MAX_ERROR_CHARACTERS = 200
_TLS = ssl.create_default_context()


def attempt(job: Job, *, allow_private: bool) -> Result:
    """Sends it. Raises nothing: what goes wrong is the result."""
    began_at, begun = now(), time.monotonic()
    status: int | None = None
    error: str | None = None
    try:
        url = addresses.parse_url(job.url, allow_private=allow_private)
        body = _body(job)
        status = _post(url, addresses.resolve(url, allow_private=allow_private), _headers(job, body), body)
    except addresses.Forbidden as forbidden:
        error = str(forbidden)
    except (OSError, http.client.HTTPException, ValueError) as failure:
        late = time.monotonic() - begun >= TIMEOUT_S - CONNECT_S
        error = "No answer in time." if late else f"{type(failure).__name__}: {failure}"
    duration_ms = round((time.monotonic() - begun) * 1000)
    return Result(began_at, duration_ms, status, error and error[:MAX_ERROR_CHARACTERS])


def _body(job: Job) -> bytes:
    data = {**job.data, "order_id": str(job.order_id), "sequence": job.sequence}
    return orjson.dumps({"type": job.type, "timestamp": format_time(job.happened_at), "data": data})


def _headers(job: Job, body: bytes) -> dict[str, str]:
    timestamp = int(time.time())
    active = [job.secret, *([job.previous_secret] if job.previous_secret else [])]
    return {
        "Content-Type": "application/json",
        "User-Agent": "orders-api",
        "webhook-id": job.webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures.sign(secret, job.webhook_id, timestamp, body) for secret in active),
        "traceparent": f"00-{job.trace_id}-{secrets.token_hex(8)}-01",
    }


def _post(url: SplitResult, checked: list[str], headers: dict[str, str], body: bytes) -> int:
    """The status of the answer; of the rest nothing is read."""
    connection = http.client.HTTPConnection(url.hostname or "", addresses.port_of(url))
    if url.scheme == "https":
        connection.default_port = 443  # so that Host names no port where none was given
    connection.sock = _connected(url, checked)
    # A socket's timeout counts anew with each byte: this one does not.
    watchdog = threading.Timer(TIMEOUT_S - CONNECT_S, _cut, [connection.sock])
    watchdog.daemon = True
    watchdog.start()
    try:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        watchdog.cancel()
        connection.close()


def _connected(url: SplitResult, checked: list[str]) -> socket.socket:
    """A connection to one of the addresses that were checked; TLS, not yet greeted, is under the name of the URL."""
    failure: OSError = OSError("the name has no address")
    for address in checked:
        try:
            plain = socket.create_connection((address, addresses.port_of(url)), timeout=CONNECT_S / len(checked))
        except OSError as error:
            failure = error
            continue
        plain.settimeout(TIMEOUT_S)
        if url.scheme != "https":
            return plain
        return _TLS.wrap_socket(plain, server_hostname=url.hostname, do_handshake_on_connect=False)
    raise failure


def _cut(connection: socket.socket) -> None:
    """Wakes whoever waits for the other side; what TLS keeps of the connection is its own thread's."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
