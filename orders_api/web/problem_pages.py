"""`/problems`: every code explained, as JSON or as a page."""

import html
from typing import Any

import falcon
from marshmallow import fields, validate

from orders_api.errors import PROBLEMS, Problem
from orders_api.web import docs
from orders_api.web.operations import Answer, Shape, operation
from orders_api.web.problems import RetryRuleShape
from orders_api.web.resources import PRIVATE, Resource

POLICY = "Content-Security-Policy"
OF_PAGES = (POLICY, "Referrer-Policy")
BOTH = (falcon.MEDIA_JSON, falcon.MEDIA_HTML)

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em}"
    "td,th{padding:.25em 1em .25em 0;vertical-align:top;text-align:left}code{overflow-wrap:anywhere}"
)
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="/docs/favicon.svg"><style>{style}</style>
<h1>{title}</h1>
{body}
</html>
"""
_TABLE = """<p>The <code>code</code> of a problem document is one of these. Each leads to its cure.</p>
<table><tr><th>Status<th>Code<th>Meaning{rows}</table>"""
_EXPLANATION = """<p><code>{code}</code>, status {status}</p>
<p>{cure}</p>
<table>
<tr><th>May the same request be sent again?<td>{safe}
<tr><th>With the same <code>Idempotency-Key</code>?<td>{same_key}
</table>
<p><a href="/problems">All problems</a> · <a href="/docs">The API</a></p>"""


class ProblemEntryShape(Shape):
    type = fields.String(required=True, metadata={"format": "uri-reference"})
    code = fields.String(required=True, validate=validate.OneOf(list(PROBLEMS)))
    status = fields.Integer(required=True)
    title = fields.String(required=True)
    cure = fields.String(required=True)
    retry = fields.Nested(RetryRuleShape, required=True)


class ProblemEntriesShape(Shape):
    data = fields.List(fields.Nested(ProblemEntryShape), required=True)


def entry(code: str) -> dict[str, Any]:
    kind = PROBLEMS[code]
    return {
        "type": f"/problems/{code}",
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "cure": kind.cure,
        "retry": {"safe": kind.safe, "same_key": kind.same_key},
    }


class Problems(Resource):
    """`/problems`: every code."""

    authenticated = False
    limits = ("ip",)

    @operation(
        "list_problems",
        "List all problems",
        "As JSON, or as a page to who prefers HTML.",
        Answer(
            200,
            "Every code, with what it means and its cure.",
            ProblemEntriesShape,
            headers=OF_PAGES,
            media_types=BOTH,
        ),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        entries = [entry(code) for code in PROBLEMS]
        if _wants_html(req, resp):
            _page(resp, "What can go wrong", _TABLE.format(rows="".join(map(_row, entries))))
        else:
            resp.media = {"data": entries}


class ProblemByCode(Resource):
    """`/problems/{code}`: what it means and how to cure it."""

    authenticated = False
    limits = ("ip",)

    @operation(
        "explain_problem",
        "Explain a problem",
        "As JSON, or as a page to who prefers HTML.",
        Answer(200, "What it means, and its cure.", ProblemEntryShape, headers=OF_PAGES, media_types=BOTH),
        problems=("problem_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, code: str) -> None:
        if code not in PROBLEMS:
            raise Problem("problem_not_found")
        if _wants_html(req, resp):
            _page(resp, PROBLEMS[code].title, _explained(entry(code)))
        else:
            resp.media = entry(code)


def _wants_html(req: falcon.Request, resp: falcon.Response) -> bool:
    resp.set_header("Vary", "Accept")
    return req.client_prefers(["application/json", "text/html"]) == "text/html"


def _row(known: dict[str, Any]) -> str:
    title = html.escape(known["title"])
    return f'<tr><td>{known["status"]}<td><a href="{known["type"]}"><code>{known["code"]}</code></a><td>{title}'


def _explained(known: dict[str, Any]) -> str:
    safe, same_key = (("no", "yes")[known["retry"][name]] for name in ("safe", "same_key"))
    return _EXPLANATION.format(**{**known, "cure": html.escape(known["cure"])}, safe=safe, same_key=same_key)


def _page(resp: falcon.Response, title: str, body: str) -> None:
    resp.content_type = falcon.MEDIA_HTML
    resp.set_header(POLICY, docs.POLICY.replace("style-src 'self'", "style-src 'unsafe-inline'"))
    resp.set_header("Referrer-Policy", "no-referrer")
    resp.set_headers(PRIVATE)
    resp.text = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
