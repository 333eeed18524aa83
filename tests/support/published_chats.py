"""Chats that the published template of gpt-oss is tried on: messages, and variables beside them."""

from typing import Any

USER = {"role": "user", "content": "What is the tide in Brest? 为什么"}
ARGUMENTS = {"place": "Brest", "days": [1, 2]}
CALL = {"type": "function", "function": {"name": "tide", "arguments": ARGUMENTS}}
RESULT = {"role": "tool", "content": '{"height": 3.5}'}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "Tells the tide.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A harbour."},
                    "days": {"type": "array", "items": {"type": "integer"}},
                    "unit": {"type": "string", "enum": ["m", "ft"], "default": "m"},
                },
                "required": ["place"],
            },
        },
    }
]
CALLED = [USER, {"role": "assistant", "thinking": "Look it up.", "tool_calls": [CALL]}, RESULT]
ANSWERED = [*CALLED, {"role": "assistant", "content": "3.5 m", "thinking": "Easy."}, USER]
CHATS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([USER], {}),
    ([USER], {"reasoning_effort": "high", "model_identity": "You are a harbour master."}),
    ([{"role": "system", "content": "Be brief."}, USER], {}),
    ([{"role": "developer", "content": "Be brief."}, USER], {"tools": TOOLS}),
    ([USER], {"builtin_tools": ["browser", "python"]}),
    (CALLED, {"tools": TOOLS}),
    (ANSWERED, {"tools": TOOLS}),
    (
        [
            USER,
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [CALL],
            },
            RESULT,
        ],
        {},
    ),
    ([USER, {"role": "assistant", "content": "x", "thinking": None, "tool_calls": None}, USER], {}),
    (
        [
            USER,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": {"height": 3}},
        ],
        {},
    ),
]
