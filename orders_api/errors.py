"""The problem table: the only place where a code, its status and its title stand (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ProblemType:
    """What a code means. `safe`: sending the same request again does no harm; `same_key`: with the same Idempotency-Key."""

    status: int
    title: str
    cure: str
    safe: bool = True
    same_key: bool = True


PROBLEMS: dict[str, ProblemType] = {
    "malformed_json": ProblemType(
        400,
        "The body is not valid JSON",
        "Send one JSON document in UTF-8: no NaN, no duplicate keys, at most 32 levels deep, integers of at most 19 digits.",
    ),
    "idempotency_key_missing": ProblemType(
        400,
        "An Idempotency-Key is required",
        "Make a fresh key for each order (a UUID will do) and send it in the Idempotency-Key header, the same one on every retry.",
    ),
    "idempotency_key_invalid": ProblemType(
        400,
        "The Idempotency-Key is not valid",
        "A key is 1 to 255 printable ASCII characters, bare or as a quoted string.",
        same_key=False,
    ),
    "cursor_invalid": ProblemType(
        400, "The cursor is not valid", "Send next_cursor back unchanged, or start again without a cursor."
    ),
    "cursor_mismatch": ProblemType(
        400,
        "The cursor belongs to other filters",
        "Keep status, created_after and created_before as they were when the walk began, or start again without a cursor.",
    ),
    "token_missing": ProblemType(
        401,
        "An access token is required",
        "Log in at POST /auth/login and send Authorization: Bearer <access_token>.",
    ),
    "token_invalid": ProblemType(
        401, "The access token is not valid", "Log in again: the token is damaged, or its session has ended."
    ),
    "token_expired": ProblemType(
        401,
        "The access token has expired",
        "Get a new pair at POST /auth/refresh, then send the request again.",
    ),
    "credentials_invalid": ProblemType(
        401,
        "The email or the password is wrong",
        "Check both. After five failed attempts within 15 minutes the email is locked for 15 minutes.",
        safe=False,
    ),
    "refresh_token_invalid": ProblemType(
        401,
        "The refresh token is not valid",
        "Log in again: the token is unknown, expired, spent, or its session has ended.",
        safe=False,
    ),
    "signature_invalid": ProblemType(
        401,
        "The webhook's signature is not valid",
        "Sign id.timestamp.body with an active secret (Standard Webhooks) and send it within five minutes.",
    ),
    "transition_forbidden": ProblemType(
        403,
        "This status is not yours to set",
        "An order becomes paid by a verified payment event alone; pay it with the payment provider.",
    ),
    "route_not_found": ProblemType(
        404, "There is nothing at this address", "Check the path against the API's documentation."
    ),
    "order_not_found": ProblemType(404, "There is no such order", "Check the id; only your own orders can be seen."),
    "idempotency_key_not_found": ProblemType(
        404,
        "No committed request used this key",
        "The request with this key did not create an order (or has not yet): send it again with the same key.",
    ),
    "endpoint_not_found": ProblemType(
        404, "There is no such webhook endpoint", "GET /webhook-endpoints lists your own."
    ),
    "delivery_not_found": ProblemType(
        404, "There is no such delivery", "GET /webhook-endpoints/{id}/deliveries lists those of the last 30 days."
    ),
    "problem_not_found": ProblemType(404, "There is no such problem", "GET /problems lists all codes."),
    "method_not_allowed": ProblemType(
        405, "This address does not take this method", "The Allow header lists the methods that it takes."
    ),
    "email_taken": ProblemType(409, "The email already has an account", "Log in instead, or register another email."),
    "idempotency_key_in_progress": ProblemType(
        409,
        "A request with this key is still in progress",
        "Wait, then send the same request with the same key: the answer will be replayed.",
    ),
    "idempotency_key_expired": ProblemType(
        409,
        "The stored answer of this key has expired",
        "The order exists: follow the Link header. For another order use a new key.",
        safe=False,
        same_key=False,
    ),
    "transition_invalid": ProblemType(
        409,
        "The order can't go to this status",
        "Read the order again; `allowed` lists the steps it can take.",
    ),
    "order_not_editable": ProblemType(
        409,
        "The order is settled",
        "Only metadata of a paid or cancelled order can change; place a new order.",
    ),
    "endpoint_limit_reached": ProblemType(
        409, "There are as many webhook endpoints as there may be", "Delete one of your ten first."
    ),
    "version_conflict": ProblemType(
        412,
        "The order has changed since you read it",
        "Read it again, apply your change to what it is now, and send it with the new ETag.",
    ),
    "body_too_large": ProblemType(413, "The body is too large", "A body may be at most 64 KiB."),
    "media_type_unsupported": ProblemType(
        415,
        "The body is not in a format that is taken here",
        "Send Content-Type: application/json, in UTF-8, without Content-Encoding.",
    ),
    "validation_failed": ProblemType(
        422, "The request is not valid", "`errors` lists all that is wrong, each with where it stands."
    ),
    "idempotency_key_reused": ProblemType(
        422,
        "The Idempotency-Key was used for another body",
        "Use a new key for each new order; a retry must repeat its body unchanged.",
        safe=False,
        same_key=False,
    ),
    "rate_limited": ProblemType(429, "Too many requests", "Wait as long as Retry-After says."),
    "account_locked": ProblemType(
        429,
        "Too many failed logins",
        "Wait as long as Retry-After says; sessions that are already open keep working.",
        safe=False,
    ),
    "internal_error": ProblemType(
        500,
        "Something went wrong on our side",
        "Send the request again with the same Idempotency-Key; if it stays, report the trace_id.",
    ),
    "overloaded": ProblemType(503, "The service is busy", "Wait as long as Retry-After says, then send it again."),
    "database_unavailable": ProblemType(
        503, "The database can't be reached", "Wait as long as Retry-After says, then send it again."
    ),
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: `pointer` into the body (RFC 6901, as a URI fragment), or a query `parameter`."""

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None

    def document(self) -> dict[str, str]:
        where = {"parameter": self.parameter} if self.parameter is not None else {"pointer": self.pointer or "#"}
        return {**where, "code": self.code, "detail": self.detail}


class Problem(Exception):  # noqa: N818  (RFC 9457's word)
    """Ends the request with a problem document.

    `after_s`: whole seconds until it makes sense to try again; `headers`: what the answer carries besides;
    `members`: extension members of the document.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.type = PROBLEMS[code]
        self.detail = detail or self.type.cure
        self.errors = errors
        self.after_s = after_s
        self.headers = headers or {}
        self.members = members or {}


def invalid(*errors: FieldError) -> Problem:
    """A 422 that names all that is wrong."""
    count = "One thing is" if len(errors) == 1 else f"{len(errors)} things are"
    return Problem("validation_failed", f"{count} wrong with the request; `errors` names each.", errors=errors)
