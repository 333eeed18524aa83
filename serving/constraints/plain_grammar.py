"""The grammar of one answer of a model without harmony.

An answer is thoughts in `<think>` tags, where the model has them, then a text or calls, each as the
models of this kind were trained to write it:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gptoss_onnx.serving.constraints.json_grammar import configured
from gptoss_onnx.serving.constraints.wanted import Wanted

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
_RULES = r"""
SPACE: /[ \n\r\t]{1,8}/
TEXT: /(.|\n)*/
"""


@dataclass(frozen=True)
class Tags:
    """How a tokenizer spells the tags, and how its model thinks.

    Attributes:
        special: ids of those tags that are control tokens; the others are text.
        thinks: the model may begin with thoughts.
        has_begun: the prompt has begun them.
    """

    special: Mapping[str, int]
    thinks: bool
    has_begun: bool

    def spelled(self, tag: str) -> str:
        """Return a tag as a grammar names it."""
        return f"<[{self.special[tag]}]>" if tag in self.special else f'"{tag}"'


def plain_grammar(wanted: Wanted, tags: Tags) -> str:
    """Return the grammar in llguidance's variant of Lark."""
    answer = _answer(wanted)
    if tags.has_begun:
        answer = f"thoughts {answer}"
    elif tags.thinks:
        answer = f"(SPACE? {tags.spelled(THINK)} thoughts)? {answer}"
    rules = [f"start: {answer}", _RULES, _until("thoughts", THINK_END, tags)]
    calls = " | ".join(f"call_{place}" for place in range(len(wanted.calls)))
    if wanted.calls:
        rules += [f"call: {tags.spelled(CALL)} call_rest", f"call_rest: {calls}"]
        rules.append(_until("text_and_tag", CALL, tags))
    for place, (name, schema) in enumerate(wanted.calls.items()):
        begin = rf'"\n{{\"name\": \"{name}\", \"arguments\": "'
        rules.append(rf'call_{place}: {begin} arguments_{place} "}}\n" {tags.spelled(CALL_END)}')
        rules.append(f"arguments_{place}: %json {configured(schema)}")
    if wanted.answer is not None:
        rules.append(f"answer: %json {configured(wanted.answer)}")
    if wanted.has_tools and not wanted.calls:
        rules.append(_text_without_call(tags))
    return "\n".join(rules)


def _answer(wanted: Wanted) -> str:
    """Return what may follow the thoughts."""
    if not wanted.calls and wanted.answer is None:
        return "text_without_call"
    if wanted.answer is None and not wanted.must_call:
        # Text between calls; the first text that ends without one ends the answer.
        if wanted.several_calls:
            return "(text_and_tag call_rest)* TEXT"
        return "(text_and_tag call_rest SPACE? | TEXT)"
    calls = "SPACE? call (SPACE? call)*" if wanted.several_calls else "SPACE? call"
    if wanted.must_call:
        return f"{calls} SPACE?"
    return f"(SPACE? answer | {calls} SPACE?)" if wanted.calls else "SPACE? answer"


def _until(rule: str, tag: str, tags: Tags) -> str:
    """Return the rule of a text that ends with the first of its tag."""
    if tag in tags.special:
        return f"{rule}: TEXT {tags.spelled(tag)}"
    return rf"{rule}[lazy]: /(.|\n)*{tag.replace('/', chr(92) + '/')}/"


def _text_without_call(tags: Tags) -> str:
    if CALL in tags.special:  # which a text cannot hold
        return "text_without_call: TEXT"
    return (
        "text_without_call: TEXT_WITHOUT_CALL\n"
        rf"TEXT_WITHOUT_CALL: /(.|\n)*/ & ~/(?s:.*){CALL}(?s:.*)/"
    )
