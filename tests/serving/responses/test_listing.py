"""Pages of items: every item once, in order, whatever the pages' length."""

import pytest

from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.responses.listing import page

ITEMS = [{"id": f"i{place}"} for place in range(45)]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [None, "1", "44", "45", "100"])
def test_pages_add_up_to_all_items(order: str, limit: str | None) -> None:
    query = {"order": order} | ({} if limit is None else {"limit": limit})
    found = []
    while True:
        listed = page(ITEMS, query)
        found += listed["data"]
        assert (listed["first_id"], listed["last_id"]) == (
            listed["data"][0]["id"],
            listed["data"][-1]["id"],
        )
        assert len(listed["data"]) <= int(limit or 20)
        if not listed["has_more"]:
            break
        query["after"] = listed["last_id"]
    assert found == (ITEMS if order == "asc" else ITEMS[::-1])


def test_the_newest_come_first_by_default_and_there_may_be_none() -> None:
    assert page(ITEMS, {})["data"][0] == ITEMS[-1]
    empty = page([], {})
    assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)


@pytest.mark.parametrize(
    "query",
    [
        {"order": "up"},
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "9" * 5_000},
        {"limit": "-1"},
        {"limit": "²"},
        {"after": "x"},
    ],
)
def test_a_wrong_query_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ApiError) as refusal:
        page(ITEMS, query)
    assert refusal.value.param in query and refusal.value.status == 400
