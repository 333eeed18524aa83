"""A page of items, as OpenAI's lists are read: from an item on, forwards or backwards."""

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_onnx.serving.errors import wrong_field
from gptoss_onnx.serving.fields import shown
from gptoss_onnx.serving.responses.growing import Item

PAGE_LIMIT, PAGE_DEFAULT = 100, 20


def page(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the list of items that a query asks for.

    `query` may have `order` (`desc`, which is the default, or `asc`), `limit` (1 to 100) and
    `after`, the id of the item before the page. Raises ApiError for a value that does not fit.
    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_field("order", shown(order), '"asc" or "desc"')
    limit = query.get("limit", f"{PAGE_DEFAULT}")
    if not (limit.isdecimal() and limit.isascii() and 1 <= int(limit[:9]) <= PAGE_LIMIT):
        raise wrong_field("limit", shown(limit), f"an integer, 1 to {PAGE_LIMIT}")
    ordered = list(items) if order == "asc" else list(reversed(items))
    after = query.get("after")
    if after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise wrong_field("after", shown(after), "the id of an item of this response")
        ordered = ordered[places[0] + 1 :]
    found = ordered[: int(limit)]
    return {
        "object": "list",
        "data": found,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
        "has_more": len(ordered) > len(found),
    }
