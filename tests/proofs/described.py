"""What schemathesis can't read from the description: who it is, and how a provider signs. Loaded by its hooks setting.

SERVED: where the service is. CALLERS: a file with access tokens of as many users, one a line, for this process alone.
"""

import atexit
import json
import os
import time
import uuid
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import requests
import requests.auth
import schemathesis
from schemathesis import AuthContext, Case, HookContext
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

from orders_api.payments.signatures import sign

SECRET = bytes.fromhex(os.environ["PROVIDER_SECRET"])
TOKENS = Path(os.environ["CALLERS"]).read_text().split()
LONGEST_TARGET = 8000  # bytes; conf/gunicorn.conf.py takes request lines of 8190
TO_BE_SIGNED = "v1,to-be-signed"
_leavers = count(1)
excused: Counter[str] = Counter()
used_key: dict[str, str] = {}


@schemathesis.auth(refresh_interval=None).skip_for(path=["/metrics", "/webhooks/payments"])
class Bearer:
    """One user for all requests, but for those that log out: each of these is another's, and ends nobody else's."""

    def get(self, case: Case, context: AuthContext) -> str:
        leaves = context.operation.path == "/auth/logout"
        return TOKENS[next(_leavers) % (len(TOKENS) - 1) + 1] if leaves else TOKENS[0]

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.auth(refresh_interval=None).apply_to(path="/metrics")
class Scraper:
    def get(self, case: Case, context: AuthContext) -> str:
        return os.environ["METRICS_TOKEN"]

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.auth(refresh_interval=None).apply_to(path="/webhooks/payments")
class Provider:
    """Signs what it sends, where nothing is wrong with the headers on purpose."""

    def get(self, case: Case, context: AuthContext) -> str:
        return TO_BE_SIGNED

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        if not (case.meta and case.meta.is_negative_at(ParameterLocation.HEADER)):
            case.headers["webhook-signature"] = data


class Signed(requests.auth.AuthBase):
    """The bytes that are sent are known only here."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        raw, at, webhook_id = body if isinstance(body, bytes) else body.encode(), int(time.time()), uuid.uuid4().hex
        request.headers["webhook-id"], request.headers["webhook-timestamp"] = webhook_id, str(at)
        request.headers["webhook-signature"] = sign(SECRET, webhook_id, at, raw)
        return request


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    if case.headers.get("webhook-signature") == TO_BE_SIGNED:
        kwargs["auth"] = Signed()
    if case.meta and case.meta.generation.mode.is_positive:
        _make_sense_of(case)


def _make_sense_of(case: Case) -> None:
    """A key is for one order, a cursor is ours, what is named is there, items add up: no description can say so."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = used_key["last"] = uuid.uuid4().hex
    if "key" in case.path_parameters:
        case.path_parameters |= {"key": used_key.get("last", "none")}
    if case.meta.phase.name != TestPhase.STATEFUL:
        case.query.pop("cursor", None)
        _name_what_is_there(case)
    if isinstance(case.body, dict) and case.body.get("items") and "total_cents" in case.body:
        case.body["total_cents"] = sum(item["quantity"] * item["unit_price_cents"] for item in case.body["items"])


def _name_what_is_there(case: Case) -> None:
    """A new one each time: the change may cancel the order, and a refresh token is good once."""
    if case.operation.label == "PATCH /orders/{order_id}":
        order = _posted("/orders", {"currency": "EUR", "total_cents": 1250})
        case.path_parameters |= {"order_id": order.json()["id"]}
        if "If-Match" in case.headers:
            case.headers["If-Match"] = order.headers["ETag"]
    if case.operation.label == "POST /auth/refresh":
        credentials = {"email": f"{uuid.uuid4().hex}@example.com", "password": uuid.uuid4().hex}
        _posted("/auth/register", credentials)
        case.body = {"refresh_token": _posted("/auth/login", credentials).json()["refresh_token"]}


def _posted(path: str, body: dict[str, Any]) -> requests.Response:
    headers = {"Authorization": f"Bearer {TOKENS[0]}", "Idempotency-Key": uuid.uuid4().hex}
    answer = requests.post(f"{os.environ['SERVED']}{path}", json=body, headers=headers, timeout=10)
    answer.raise_for_status()
    return answer


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    for excuse in EXCUSES:
        if excuse(failure, response):
            excused[excuse.__name__] += 1
            return False
    return True


def _too_long_for_http(failure: Failure, response: Response) -> bool:
    """What gunicorn refuses before the application sees it gets gunicorn's own 400 (CONTRACT 2)."""
    return response.status_code == 400 and len(response.request.path_url) > LONGEST_TARGET


def _opaque_cursor(failure: Failure, response: Response) -> bool:
    """Only a cursor of ours is valid, and no schema can tell which are."""
    return isinstance(failure, RejectedPositiveData) and _code(response) in ("cursor_invalid", "cursor_mismatch")


def _about_several_fields(failure: Failure, response: Response) -> bool:
    """Items have to add up, to the total and within its bounds; what a merge leaves has its bound too."""
    if not isinstance(failure, RejectedPositiveData) or _code(response) != "validation_failed":
        return False
    return all((error.get("pointer"), error["code"]) in BEYOND_A_SCHEMA for error in response.json()["errors"])


def _whole_float(failure: Failure, response: Response) -> bool:
    """To JSON Schema 1.0 is an integer; to us it is none (CONTRACT 1)."""
    if not isinstance(failure, RejectedPositiveData) or _code(response) != "validation_failed":
        return False
    return all(error["detail"] == "Must be an integer." for error in response.json()["errors"])


def _stricter_json(failure: Failure, response: Response) -> bool:
    """What an event of an unknown type holds is any object, but for 20 digits and 33 levels (CONTRACT 1)."""
    if not isinstance(failure, RejectedPositiveData) or _code(response) != "malformed_json":
        return False
    return any(words in response.json()["detail"] for words in ("more than 19 digits", "deeper than 32 levels"))


EXCUSES = (_too_long_for_http, _opaque_cursor, _about_several_fields, _whole_float, _stricter_json)
BEYOND_A_SCHEMA = {("#/total_cents", "sum_mismatch"), ("#/items", "out_of_range"), ("#/metadata", "out_of_range")}


@atexit.register
def _tell() -> None:
    Path(os.environ["EXCUSED"]).write_text(json.dumps(excused))


def _code(response: Response) -> str | None:
    return response.json().get("code") if response.status_code >= 400 else None
