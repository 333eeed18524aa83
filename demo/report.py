"""Measures a finished checkpoint in transformers: `python demo/report.py --work FOLDER --checkpoint
FOLDER`.

Legend: B batch, S sequence, H query heads, E experts, T experts per token, V vocabulary.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from data import load_novels, split_held_out
from export import load
from jinja2 import Template
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GptOssForCausalLM

PROMPTS = ("It was a truth", "She was ", "Elizabeth", '"My dear')
CHATS = (
    ("", "Tell me about Emma."),
    ("Answer in one sentence.", "Continue: Mr. Darcy bowed, and left the room."),
)


@torch.no_grad()
def main() -> None:
    """Print every figure the model card quotes, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder with the text, as train.py left it"
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    options = parser.parse_args()
    model = load(options.checkpoint)
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    kept, held = split_held_out(load_novels(options.work))
    held_text = _join(held)
    # As much training text as held-out text, from the middle of the training text.
    middle = _join(kept)[len(_join(kept)) // 2 :][: len(held_text)]
    for name, text in (("training", middle), ("held-out", held_text)):
        print(f"{name}: {describe_loss(model, tokenizer, text)}")
    rows = encode(tokenizer, held_text, 1024)[:16]
    print(f"held-out by position in rows of 1024: {describe_positions(model, rows)}")
    print_sinks(model, rows[:8, :256])
    print_routing(model, rows[:8, :256])
    for prompt in PROMPTS:
        print(f"\n{prompt!r} → {complete(model, tokenizer, prompt, 80)!r}")
    template = Template((options.checkpoint / "chat_template.jinja").read_text())
    for system, user in CHATS:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        prompt = template.render(messages=messages, add_generation_prompt=True)
        print(f"\n{system!r} {user!r} → {complete(model, tokenizer, prompt, 80)!r}")


def encode(tokenizer: Tokenizer, text: str, length: int) -> Tensor:
    """Text as rows (B, length + 1) int64 that overlap by one token."""
    return torch.tensor(tokenizer.encode(text).ids).unfold(0, length + 1, length)


def token_losses(model: GptOssForCausalLM, rows: Tensor) -> Tensor:
    """Cross-entropy of every token after the first, in nats: rows (B, S+1) → (B, S)."""
    parts = []
    for part in rows.split(8):
        logits = model(part[:, :-1], use_cache=False).logits  # (b, S, V)
        parts.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none"))
    return torch.cat(parts)


def describe_loss(model: GptOssForCausalLM, tokenizer: Tokenizer, text: str) -> str:
    """Loss over rows of 256 tokens as nats a token, perplexity and bits a byte."""
    rows = encode(tokenizer, text, 256)
    losses = token_losses(model, rows)
    size = len(tokenizer.decode(rows[:, 1:].flatten().tolist()).encode())
    mean, bits = losses.mean().item(), losses.sum().item() / math.log(2) / size
    return (
        f"{mean:.3f} nats/token, perplexity {math.exp(mean):.1f}, {bits:.3f} bits/byte, "
        f"{losses.numel()} tokens"
    )


def describe_positions(model: GptOssForCausalLM, rows: Tensor) -> str:
    """Mean loss of each quarter of the rows (B, S+1)."""
    quarters = token_losses(model, rows).mean(0).chunk(4)
    return ", ".join(f"{quarter.mean():.3f}" for quarter in quarters)


def print_sinks(model: GptOssForCausalLM, ids: Tensor) -> None:
    """Probability that falls on the sink, per layer, over ids (B, S)."""
    print(
        "\n| layer | type | sink mass: mean | least head | most head | least query | most query | "
        "uniform |"
    )
    print("|---|---|---|---|---|---|---|---|")
    attentions = model(ids, output_attentions=True, use_cache=False).attentions
    for layer, (attention, kind) in enumerate(
        zip(attentions, model.config.layer_types or [], strict=True)
    ):
        mass = 1 - attention.sum(-1)  # (B, H, S); the sink's own column is dropped by transformers
        seen = torch.arange(1, ids.shape[1] + 1)
        if kind == "sliding_attention":
            seen = seen.clamp(max=model.config.sliding_window)
        heads = mass.mean((0, 2))
        figures = (
            mass.mean(),
            heads.min(),
            heads.max(),
            mass.min(),
            mass.max(),
            (1 / (seen + 1)).mean(),
        )
        print(
            f"| {layer} | {kind.split('_')[0]} | " + " | ".join(f"{f:.3f}" for f in figures) + " |"
        )


def print_routing(model: GptOssForCausalLM, ids: Tensor) -> None:
    """How decided the router is on a token, and how evenly the experts are used, over ids (B,
    S).
    """
    experts, top_k = model.config.num_local_experts, model.config.num_experts_per_tok
    even = f"{1 / experts:.3f} to each expert, {top_k / experts:.3f} to four"
    print(f"\nln E = {math.log(experts):.3f}; an even router gives {even}")
    print(
        "| layer | entropy per token | usage entropy | first choice's probability | the four's "
        "| busiest expert | idlest expert |"
    )
    print("|---|---|---|---|---|---|---|")
    for layer, logits in enumerate(
        model(ids, output_router_logits=True, use_cache=False).router_logits
    ):
        probability = logits.flatten(0, -2).softmax(-1)  # (B·S, E)
        top, chosen = probability.topk(top_k, -1)
        usage = chosen.flatten().bincount(minlength=experts) / chosen.numel()
        sure = (top[:, 0].mean(), top.sum(-1).mean())
        figures = (_entropy(probability).mean(), _entropy(usage), *sure, usage.max(), usage.min())
        print(f"| {layer} | " + " | ".join(f"{f:.3f}" for f in figures) + " |")


def complete(model: GptOssForCausalLM, tokenizer: Tokenizer, prompt: str, count: int) -> str:
    """Greedy continuation of at most `count` tokens, without the prompt and without the stop
    token.
    """
    stops = {tokenizer.token_to_id(token) for token in ("<|return|>", "<|endoftext|>")}
    fresh, cache = torch.tensor([tokenizer.encode(prompt).ids]), None
    written: list[int] = []
    while len(written) < count:
        output = model(fresh, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        token = int(output.logits[0, -1].argmax())
        if token in stops:
            break
        written.append(token)
        fresh = torch.tensor([[token]])
    return tokenizer.decode(written, skip_special_tokens=False)


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * probability.clamp_min(1e-30).log()).sum(-1)


def _join(novels: list[list[str]]) -> str:
    return "\n\n".join(p for novel in novels for p in novel)


if __name__ == "__main__":
    main()
