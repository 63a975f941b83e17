"""One JSON object a line on stdout, each with the trace id of the request it belongs to."""

import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from orders_api import scrubbing

MAX_CAUSES, MAX_FRAMES = 5, 50


def _stack(exc_info: Any) -> str:
    """The stacks of an error and of its causes as they are; of what they say, what nobody sent."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(parts) < MAX_CAUSES:
        where = "".join(traceback.format_tb(error.__traceback__, -MAX_FRAMES))
        said = f"{type(error).__name__}: {scrubbing.message(_said(error))}"
        parts.append(f"Traceback (most recent call last):\n{where}{said}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nBecause of:\n\n".join(parts)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error that can't say what it is must not hide where it was
        return "?"


# Of the request that is being answered. structlog's own variables take a look at every one there is, for each request.
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


def _with_trace_id(_logger: Any, _method: str, event: Any) -> Any:
    current = trace_id.get()
    if current is not None:
        event.setdefault("trace_id", current)
    return event


_SHARED: list[Any] = [
    _with_trace_id,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]

# For logging.config: what gunicorn and the libraries say becomes JSON too, so that nothing a client sent
# reaches a log line unescaped.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _SHARED,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_stack),
                structlog.processors.JSONRenderer(),
            ],
        }
    },
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"level": "WARNING", "handlers": ["stdout"]},
    "loggers": {
        "orders_api": {"level": "INFO"},
        "gunicorn.error": {"level": "INFO", "propagate": True, "handlers": []},
        "gunicorn.access": {"level": "WARNING", "propagate": True, "handlers": []},
    },
}

_out = structlog.BytesLogger(sys.stdout.buffer)


def write(event: str, **fields: Any) -> None:
    """One line at level info, past structlog too: there is one a request, and its steps cost 3 % of a cached read."""
    line = {**fields, "event": event, "level": "info", "time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    _out.msg(orjson.dumps(line))


def configure() -> None:
    """What the application itself says takes the short way: to bytes by orjson, past the standard library."""
    structlog.configure(
        processors=[
            *_SHARED,
            structlog.processors.ExceptionRenderer(_stack),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _out,
        cache_logger_on_first_use=True,
    )
