"""Tools as a system or developer message tells of them: a namespace, its types, their comments."""

from collections.abc import Sequence
from dataclasses import dataclass

from gptoss_onnx.serving.prompts.tools import ToolSpec
from gptoss_onnx.serving.prompts.typescript import typescript


@dataclass(frozen=True)
class Namespace:
    """Tools that belong together; without any, the description is all that is said."""

    name: str
    description: str = ""
    tools: tuple[ToolSpec, ...] = ()


def tools_section(namespaces: Sequence[Namespace]) -> str:
    """Return the section `# Tools` of a message, namespaces in the order of their names."""
    in_order = sorted(namespaces, key=lambda namespace: namespace.name)
    return "\n\n".join(["# Tools", *map(_namespace, in_order)])


def _namespace(namespace: Namespace) -> str:
    prefix = "// " if namespace.tools else ""
    lines = [f"## {namespace.name}\n"]
    lines += [prefix + line for line in _lines(namespace.description)]
    if not namespace.tools:
        return "\n".join(lines)
    lines.append(f"namespace {namespace.name} {{\n")
    for tool in namespace.tools:
        lines += [f"// {line}" for line in _lines(tool.description)]
        argument = "" if tool.parameters is None else f"_: {typescript(tool.parameters)}"
        lines.append(f"type {tool.name} = ({argument}) => any;\n")
    lines.append(f"}} // namespace {namespace.name}")
    return "\n".join(lines)


def _lines(text: str) -> list[str]:
    """Return the lines of a text, which \\n or \\r\\n ends; other marks belong to their line."""
    lines = text.split("\n")
    ended, rest = lines[:-1], lines[-1:]
    return [line.removesuffix("\r") for line in ended] + [line for line in rest if line]
