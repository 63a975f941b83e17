"""The image's health check: whether /healthz answers. Python, because the image has no curl."""

import http.client  # not urllib: a proxy in the environment is not meant for this
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=2)
try:
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"/healthz does not answer: {error}")
sys.exit(0 if status == http.HTTPStatus.OK else f"/healthz answered {status}")
