"""An HTTP server of a test's own, on loopback, for whom the service tells something."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Loopback:
    """Listens while its block lasts; each request has a thread of its own."""

    def __init__(self) -> None:
        answered = self.answered

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answer = answered(headers, self.rfile.read(int(headers["content-length"])))
                self.send_response(status)
                for name, value in {**answer, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever)

    def answered(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        """What a POST is answered with: status and headers. Names of headers are in lower case."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
