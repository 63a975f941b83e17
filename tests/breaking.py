"""What would break a client that was written against an older description: `changes(old, new)`, a sentence each."""

from collections.abc import Iterator
from typing import Any

Description = dict[str, Any]
LOWER, UPPER = (
    ("minimum", "minLength", "minItems", "minProperties"),
    ("maximum", "maxLength", "maxItems", "maxProperties"),
)


def changes(old: Description, new: Description) -> list[str]:
    return list(_paths(_Resolved(old), _Resolved(new)))


class _Resolved:
    """A description whose references are followed where they are met."""

    def __init__(self, description: Description) -> None:
        self.description = description

    @property
    def operations(self) -> dict[str, dict[str, Any]]:
        return {
            f"{method.upper()} {path}": {**operation, "parameters": self._parameters(item, operation)}
            for path, item in self.description["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        }

    def follow(self, schema: Any) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self.description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        merged = {**schema}
        for part in schema.get("allOf", []):
            merged = {**self.follow(part), **merged}
        return merged

    @staticmethod
    def _parameters(item: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
        both = [*item.get("parameters", []), *operation.get("parameters", [])]
        return {f"{parameter['in']} {parameter['name']}": parameter for parameter in both}


def _paths(old: _Resolved, new: _Resolved) -> Iterator[str]:
    for name, before in old.operations.items():
        after = new.operations.get(name)
        if after is None:
            yield f"{name} is gone"
            continue
        if before["operationId"] != after["operationId"]:
            yield f"{name} has another operationId"
        if not before["security"] and after["security"]:
            yield f"{name} needs credentials now"
        yield from (f"{name}: {change}" for change in _requests(old, new, before, after))
        yield from (f"{name}: {change}" for change in _answers(old, new, before, after))


def _requests(old: _Resolved, new: _Resolved, before: Any, after: Any) -> Iterator[str]:
    for name, parameter in after["parameters"].items():
        if parameter.get("required") and not before["parameters"].get(name, {}).get("required"):
            yield f"{name} is required now"
    for name, parameter in before["parameters"].items():
        if name not in after["parameters"]:
            yield f"{name} is gone"
        else:
            yield from _narrowed(name, old, parameter["schema"], new, after["parameters"][name]["schema"])
    given, taken = before.get("requestBody", {"content": {}}), after.get("requestBody", {"content": {}})
    for media_type, content in given["content"].items():
        if media_type not in taken["content"]:
            yield f"{media_type} is not taken any more"
        else:
            yield from _narrowed("the body", old, content["schema"], new, taken["content"][media_type]["schema"])


def _answers(old: _Resolved, new: _Resolved, before: Any, after: Any) -> Iterator[str]:
    for status, answer in before["responses"].items():
        if status >= "4":
            continue  # a client has to bear any problem
        if status not in after["responses"]:
            yield f"{status} is not answered any more"
            continue
        yield from (
            f"{status} without {name}"
            for name in answer["headers"].keys() - after["responses"][status]["headers"].keys()
        )
        for media_type, content in answer.get("content", {}).items():
            if media_type not in after["responses"][status].get("content", {}):
                yield f"{status} without {media_type}"
            else:
                theirs = after["responses"][status]["content"][media_type]["schema"]
                yield from _lost(status, old, content["schema"], new, theirs)


def _narrowed(where: str, old: _Resolved, before: Any, new: _Resolved, after: Any) -> Iterator[str]:
    """What was taken and is refused now."""
    before, after = old.follow(before), new.follow(after)
    if not _types(before) <= _types(after):
        yield f"{where} takes other types"
    if "enum" in after and not set(before.get("enum", [object()])) <= set(after["enum"]):
        yield f"{where} takes fewer values"
    yield from (f"{where} has another {bound}" for bound in (*LOWER, *UPPER) if _tightened(bound, before, after))
    if before.get("pattern") != after.get("pattern"):
        yield f"{where} has another pattern"
    yield from (f"{where} needs {name}" for name in set(after.get("required", [])) - set(before.get("required", [])))
    for name, schema in before.get("properties", {}).items():
        if name not in after.get("properties", {}):
            yield f"{where} does not take {name} any more"
        else:
            yield from _narrowed(f"{where}/{name}", old, schema, new, after["properties"][name])
    if "items" in before and "items" in after:
        yield from _narrowed(f"{where}/*", old, before["items"], new, after["items"])


def _tightened(bound: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    if bound not in after or before.get(bound) == after[bound]:
        return False
    return bound not in before or (after[bound] > before[bound]) is (bound in LOWER)


def _lost(where: str, old: _Resolved, before: Any, new: _Resolved, after: Any) -> Iterator[str]:
    """What was promised of an answer and is no more."""
    before, after = old.follow(before), new.follow(after)
    if not _types(after) <= _types(before):
        yield f"{where} may be of other types"
    if "enum" in before and not set(after.get("enum", [object()])) <= set(before["enum"]):
        yield f"{where} may have other values"
    yield from (f"{where} may lack {name}" for name in set(before.get("required", [])) - set(after.get("required", [])))
    for name, schema in before.get("properties", {}).items():
        if name in after.get("properties", {}):
            yield from _lost(f"{where}/{name}", old, schema, new, after["properties"][name])
        else:
            yield f"{where} lacks {name}"
    if "items" in before and "items" in after:
        yield from _lost(f"{where}/*", old, before["items"], new, after["items"])


def _types(schema: dict[str, Any]) -> set[str]:
    kind = schema.get("type", [])
    return {kind} if isinstance(kind, str) else set(kind)
