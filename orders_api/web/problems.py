"""Errors become problem documents (RFC 9457) here and nowhere else."""

from typing import Any

import falcon
import orjson
import structlog
from marshmallow import fields, validate

from orders_api.db import problem_of, sqlstate
from orders_api.errors import PROBLEMS, FieldError, Problem, invalid
from orders_api.reporting import reporter
from orders_api.web.operations import TRACE_ID_PATTERN, Shape
from orders_api.web.tracing import tags_of

log = structlog.get_logger("orders_api.problems")

SERVER_ERROR = 500
MEDIA_TYPE = "application/problem+json"
REALM = 'Bearer realm="orders-api"'
# RFC 6750, section 3: without a token there is no error to name.
CHALLENGES = {
    "token_missing": REALM,
    "token_invalid": f'{REALM}, error="invalid_token", error_description="The access token is not valid"',
    "token_expired": f'{REALM}, error="invalid_token", error_description="The access token has expired"',
}


class RetryRuleShape(Shape):
    safe = fields.Boolean(required=True, metadata={"description": "Sending the same request again does no harm."})
    same_key = fields.Boolean(required=True, metadata={"description": "With the same Idempotency-Key."})


class RetryShape(RetryRuleShape):
    after_s = fields.Integer(required=True, allow_none=True, metadata={"description": "Null: nothing to wait for."})


class FieldErrorShape(Shape):
    code = fields.String(required=True)
    detail = fields.String(required=True)
    pointer = fields.String(metadata={"description": "A JSON pointer into the body, as a URI fragment (RFC 6901)."})
    parameter = fields.String(metadata={"description": "Of the query."})


class ProblemShape(Shape):
    type = fields.String(required=True, metadata={"format": "uri-reference"})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    code = fields.String(required=True, validate=validate.OneOf(list(PROBLEMS)))
    detail = fields.String(required=True, metadata={"description": "One sentence that a person can act on."})
    trace_id = fields.String(required=True, validate=validate.Regexp(TRACE_ID_PATTERN))
    retry = fields.Nested(RetryShape, required=True)
    errors = fields.List(fields.Nested(FieldErrorShape), metadata={"description": "All that is wrong, at once."})
    allowed = fields.List(fields.String(), metadata={"description": "Of `transition_invalid`: the steps that can be."})


def register(app: falcon.App) -> None:
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _framework)
    app.add_error_handler(Problem, _raised)


def _raised(req: falcon.Request, resp: falcon.Response, problem: Problem, params: dict[str, Any]) -> None:
    code = req.context.problem = problem.code
    resp.status = problem.type.status
    resp.content_type = MEDIA_TYPE
    resp.set_header("Cache-Control", "no-store")
    if code in CHALLENGES:
        resp.set_header("WWW-Authenticate", CHALLENGES[code])
    if problem.after_s is not None:
        resp.set_header("Retry-After", str(problem.after_s))
    resp.set_headers(dict(problem.headers))
    resp.data = orjson.dumps(document(problem, req.context.trace_id))
    if problem.type.status >= SERVER_ERROR:
        route, cause = req.uri_template, problem.__cause__ or problem
        reporter.report(cause, f"{code} {route}", req.context.trace_id, route=route, **tags_of(req))


def _framework(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]) -> None:
    """What Falcon itself refuses: an unknown path, or a method that is none."""
    not_found = isinstance(error, falcon.HTTPNotFound)
    _raised(req, resp, Problem("route_not_found" if not_found else "method_not_allowed"), params)


def _unexpected(req: falcon.Request, resp: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    problem = problem_of(error)
    if problem is None:
        log.exception("unexpected error", exc_info=error)
        problem = Problem("internal_error", after_s=1)
    else:
        log.warning("database problem", code=problem.code, error=type(error).__name__, sqlstate=sqlstate(error))
    problem.__cause__ = error
    _raised(req, resp, problem, params)


def document(problem: Problem, trace_id: str) -> dict[str, Any]:
    retry = {"safe": problem.type.safe, "same_key": problem.type.same_key, "after_s": problem.after_s}
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": problem.type.title,
        "status": problem.type.status,
        "code": problem.code,
        "detail": problem.detail,
        "trace_id": trace_id,
        "retry": retry,
        **problem.members,
    }
    if problem.errors:
        body["errors"] = [error.document() for error in problem.errors]
    return body


def example(code: str, trace_id: str) -> dict[str, Any]:
    """The document of a problem of this kind."""
    if code == "validation_failed":
        return document(invalid(FieldError("required", "This field is required.", pointer="#/currency")), trace_id)
    return document(Problem(code), trace_id)
