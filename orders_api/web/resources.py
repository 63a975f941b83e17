"""What every resource is: who may call it, what limits it, which query parameters it takes."""

from typing import Any, ClassVar

from orders_api.web.validation import NoParameters, Schema

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Resource:
    """Authentication and limits are on; a resource that opts out says so in its class."""

    authenticated = True
    limits: ClassVar[tuple[str, ...]] = ("ip", "user")
    query: ClassVar[Schema] = NoParameters()
    accept_patch: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]

    @classmethod
    def allowed(cls) -> list[str]:
        return [m for m in METHODS if m == "OPTIONS" or hasattr(cls, f"on_{m.lower()}")]
