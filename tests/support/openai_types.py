"""The documents of a server held to the types of OpenAI's own Python client, strictly."""

from collections.abc import Iterator
from typing import Any

from openai.types.responses import (
    Response,
    ResponseInputItem,
    ResponseItem,
    ResponseOutputItem,
    ResponseStreamEvent,
)
from pydantic import BaseModel, TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_GIVEN: TypeAdapter[Any] = TypeAdapter(ResponseInputItem)
_LISTED: TypeAdapter[Any] = TypeAdapter(ResponseItem)
_OUTPUT: TypeAdapter[Any] = TypeAdapter(ResponseOutputItem)


def check_response(document: dict[str, Any]) -> Response:
    """Return a response of the client's type; fails for a field it lacks or does not know."""
    response = Response.model_validate(document, strict=True)
    _no_extras(response)
    return response


def check_event(document: dict[str, Any]) -> Any:
    """Return an event of the client's type for it."""
    return _checked(_EVENT, document)


def check_output_item(document: dict[str, Any]) -> Any:
    """Return an item of an answer, which must also be accepted when it is sent back."""
    _checked(_GIVEN, document)
    return _checked(_OUTPUT, document)


def check_listed_item(document: dict[str, Any]) -> Any:
    """Return an item of a list of input items."""
    return _checked(_LISTED, document)


def _checked(adapter: TypeAdapter[Any], document: dict[str, Any]) -> Any:
    value = adapter.validate_python(document, strict=True)
    assert value.type == document["type"]
    _no_extras(value)
    return value


def _no_extras(value: Any) -> None:
    """The client's types take any field: those they do not name are a mistake of ours."""
    for model in _models(value):
        assert not model.model_extra, f"{type(model).__name__}: {model.model_extra}"


def _models(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))
    elif isinstance(value, list):
        for entry in value:
            yield from _models(entry)
