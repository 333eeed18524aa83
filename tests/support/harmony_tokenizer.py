"""A small byte-level tokenizer with harmony's control tokens, and a chat template that writes
them.
"""

import json
from pathlib import Path

import tokenizers

SPECIAL = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
    "<|reserved_9|>",
)
# The parts of the published template that conversations without tools reach, and tool calls; see
# tests/clients for the published one itself.
TEMPLATE = """
{{- "<|start|>system<|message|>Reasoning: " + (reasoning_effort | default("medium")) + "<|end|>" }}
{%- if tools %}
    {{- "<|start|>developer<|message|># Tools\n" }}
    {%- for tool in tools %}{{ "// " + tool.function.description + "\n" }}{% endfor %}
    {{- "<|end|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls %}
        {%- if message.thinking %}
            {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- "<|start|>assistant to=functions." + call.name }}
        {{- "<|channel|>commentary json<|message|>" }}
        {{- call.arguments | tojson }}{{ "<|call|>" }}
    {%- elif message.role == "assistant" %}
        {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|start|>functions." + message.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" }}
        {{- message.content | tojson }}{{ "<|end|>" }}
    {%- else %}
        {{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|start|>assistant" }}
{%- endif %}
"""
_SEEN = [
    "assistant analysis commentary final functions weather json",
    "the cat sat on the mat. Привет 你好 😀😃",
]


def write_harmony_tokenizer(folder: Path, template: str = TEMPLATE, vocab: int = 330) -> Path:
    """Write tokenizer.json, its configuration and the template; most characters beyond ASCII take
    several tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_SEEN * 3, trainer)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = {"eos_token": "<|return|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def is_text_of(text: str, decoded: str) -> bool:
    """Say whether `text` lies within `decoded`, or its pieces in order where a character is broken.

    A control token may stand between the bytes of one character. The parser reads
    two broken characters there, where `decode`, which leaves the control token out, reads a whole.
    """
    if "\ufffd" not in text:
        return text in decoded
    at = 0
    for piece in text.split("\ufffd"):
        at = decoded.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True
