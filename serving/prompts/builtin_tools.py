"""The tools that gpt-oss was trained with, in the words of its training (package openai-harmony,
Apache-2.0): the model knows them by these, so they must not change.
"""

from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable
from gptoss_onnx.serving.prompts.namespaces import Namespace
from gptoss_onnx.serving.prompts.tools import ToolSpec

_LAST = {"type": "number", "default": -1}  # -1: the one at hand
_BROWSER = Namespace(
    "browser",
    "Tool for browsing.\n"
    "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n"
    "Cite information from the tool using the following format:\n"
    "`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.\n"
    "Do not quote more than 10 words directly from the tool output.\n"
    "sources=web (default: web)",
    (
        ToolSpec(
            "search",
            "Searches for information related to `query` and displays `topn` results.",
            {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "topn": {"type": "number", "default": 10},
                    "source": {"type": "string"},
                },
                "required": ["query"],
            },
        ),
        ToolSpec(
            "open",
            "Opens the link `id` from the page indicated by `cursor` starting at line number "
            "`loc`, showing `num_lines` lines.\n"
            "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
            "If `cursor` is not provided, the most recent page is implied.\n"
            "If `id` is a string, it is treated as a fully qualified URL associated with "
            "`source`.\n"
            "If `loc` is not provided, the viewport will be positioned at the beginning of the "
            "document or centered on the most relevant passage, if available.\n"
            "Use this function without `id` to scroll to a new location of an opened page.",
            {
                "type": "object",
                "properties": {
                    "id": {"type": ["number", "string"], "default": -1},
                    "cursor": _LAST,
                    "loc": _LAST,
                    "num_lines": _LAST,
                    "view_source": {"type": "boolean", "default": False},
                    "source": {"type": "string"},
                },
            },
        ),
        ToolSpec(
            "find",
            "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
            {
                "type": "object",
                "properties": {"pattern": {"type": "string"}, "cursor": _LAST},
                "required": ["pattern"],
            },
        ),
    ),
)
_PYTHON = Namespace(
    "python",
    "Use this tool to execute Python code in your chain of thought. The code will not be shown "
    "to the user. This tool should be used for internal reasoning, but not for code that is "
    "intended to be visible to the user (e.g. when creating plots, tables, or files).\n\n"
    "When you send a message containing Python code to python, it will be executed in a stateful "
    "Jupyter notebook environment. python will respond with the output of the execution or time "
    "out after 120.0 seconds. The drive at '/mnt/data' can be used to save and persist user "
    "files. Internet access for this session is UNKNOWN. Depends on the cluster.",
)
BUILTIN_TOOLS = (_BROWSER.name, _PYTHON.name)


def builtin_namespaces(names: Any) -> tuple[Namespace, ...]:
    """Return the namespaces of builtin tools; raises InputError for what is none of them."""
    known = {namespace.name: namespace for namespace in (_BROWSER, _PYTHON)}
    if isinstance(names, str) or any(name not in known for name in names):
        raise InputError(
            f"builtin_tools: found {printable(repr(names))[:80]}, expected some of "
            f"{', '.join(BUILTIN_TOOLS)}"
        )
    return tuple(known[name] for name in dict.fromkeys(names))


def is_builtin(name: str) -> bool:
    """Say whether a call by this name is of a builtin tool: `python`, or one of `browser.`."""
    return name == _PYTHON.name or name.partition(".")[0] == _BROWSER.name
