"""Items of a request in one form: checked, with all their fields, ready to be kept and listed."""

from collections.abc import Iterable, Sequence

from gptoss_onnx.serving.errors import wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.responses.growing import Item
from gptoss_onnx.serving.responses.ids import new_id

ITEM_LIMIT = 20_000  # items of one request, and parts of one item
NAME_LIMIT = 256  # characters of an id or a name
_ROLES = ("user", "assistant", "system", "developer")
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
}


def read_input(fields: Fields) -> list[Item]:
    """Return the items of the field `input`, a text or a list of items; [] where there is none.

    Each item has an id, its own or a new one. Raises ApiError naming the place of what is wrong,
    and for items that this server has no use for.
    """
    given = fields.value.get("input")
    if isinstance(given, str):
        return [_said("user", [given], new_id("msg"))]
    if given is not None and not isinstance(given, list):
        raise fields.wrong("input", "a text or a list of items")
    return [_item(entry) for entry in fields.objects("input", ITEM_LIMIT)]


def distinct(items: Sequence[Item], before: Iterable[Item]) -> list[Item]:
    """Return items of which none has the id of another, nor of one before them.

    A client may send twice what it got once; lists are read from an id on.
    """
    taken = {item["id"] for item in before}
    found = []
    for item in items:
        name = new_id(_PREFIXES[item["type"]]) if item["id"] in taken else item["id"]
        taken.add(name)
        found.append({**item, "id": name})
    return found


def _item(entry: Fields) -> Item:
    kind = entry.value.get("type")
    match "message" if kind is None else kind:
        case "message":
            role = entry.one_of("role", _ROLES)
            return _said(role, _texts(entry, "content"), _id(entry, "msg"))
        case "reasoning":
            return _thoughts(entry)
        case "function_call":
            return _call(entry)
        case "function_call_output":
            return _output(entry)
        case "item_reference":
            expected = "the item itself: items are kept as parts of a response alone"
            raise entry.wrong("type", f"{expected}, which previous_response_id names")
    raise entry.wrong("type", " or ".join(_PREFIXES))


def _said(role: str, texts: list[str], name: str) -> Item:
    if role == "assistant":
        parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    else:
        parts = [{"type": "input_text", "text": text} for text in texts]
    return {"id": name, "type": "message", "status": "completed", "role": role, "content": parts}


def _thoughts(entry: Fields) -> Item:
    """Return an item of reasoning; a summary is for people and does not go back to the model."""
    parts = entry.objects("content", ITEM_LIMIT)
    if not parts and entry.has("encrypted_content"):
        expected = "thoughts as text in content: what another server locked cannot be read"
        raise wrong_field(entry.path("encrypted_content"), "a locked text", expected)
    for part in parts:
        part.one_of("type", ("reasoning_text", "text"))
    return {
        "id": _id(entry, "rs"),
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": part.text("text")} for part in parts],
    }


def _call(entry: Fields) -> Item:
    # A call that the limit of tokens cut off stays one: see `chat_messages`.
    cut_off = entry.value.get("status") == "incomplete"
    return {
        "id": _id(entry, "fc"),
        "type": "function_call",
        "status": "incomplete" if cut_off else "completed",
        "call_id": entry.text("call_id", longest=NAME_LIMIT),
        "name": entry.text("name", longest=NAME_LIMIT),
        "arguments": entry.text("arguments"),
    }


def _output(entry: Fields) -> Item:
    output = entry.value.get("output")
    if not isinstance(output, str):
        output = [{"type": "input_text", "text": text} for text in _texts(entry, "output")]
    return {
        "id": _id(entry, "fco"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": entry.text("call_id", longest=NAME_LIMIT),
        "output": output,
    }


def _texts(entry: Fields, name: str) -> list[str]:
    """Return the texts of a field that is one text or a list of parts."""
    content = entry.value.get(name)
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise entry.wrong(name, "a text or a list of parts")
    texts = []
    for part in entry.objects(name, ITEM_LIMIT):
        match part.value.get("type"):
            case "input_text" | "output_text" | "text":
                texts.append(part.text("text"))
            case "refusal":
                texts.append(part.text("refusal"))
            case kind:
                expected = "input_text or output_text: the model reads text alone"
                raise wrong_field(part.path("type"), shown(kind), expected)
    return texts


def _id(entry: Fields, prefix: str) -> str:
    return entry.text("id", longest=NAME_LIMIT) if entry.has("id") else new_id(prefix)
