"""What the scripted model says to OpenAI's clients, and the letters that ask for it."""

from typing import Any

from support.scripted_package import letter

_THOUGHTS = "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant"
_PREAMBLE = "<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant"
_CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city":"Oslo"}'
SCRIPTS = {
    "say": "<|channel|>final<|message|>Hello there.<|return|>",
    "think": f"{_THOUGHTS}<|channel|>final<|message|>It is cold.<|return|>",
    "call": f"{_THOUGHTS}{_PREAMBLE}{_CALL}<|call|>",
    "object": '<|channel|>final<|message|>{"city":"Oslo"}<|return|>',
    "endless": "<|channel|>final<|message|>" + "on and on " * 400,
}
LETTERS = {name: letter(place) for place, name in enumerate(SCRIPTS)}
SAY, THINK, CALL, OBJECT, ENDLESS = LETTERS.values()
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
