"""Attention over a plain history: no cache, no mask, one query after the other, in float64. What
SinkAttention is held to.
"""

import torch

from support.attention_cases import Case, Inputs, angles_of

History = list[tuple[torch.Tensor, torch.Tensor]]  # key and value of each token, (K, D)


class PlainHistory:
    """The tokens of every row of a case so far, as they came: no key is rotated."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._rows: list[History] = [[] for _ in range(case.batch)]

    def attend(self, inputs: Inputs) -> torch.Tensor:
        """Take in one call, and return what its real tokens see, float32 (n, H·D), row by row.

        A row of fewer cached tokens than before was rewound.
        """
        outputs = []
        heads = (self._case.kv_heads, -1)
        for row, past in enumerate(inputs["past_lengths"].tolist()):
            history = self._rows[row]
            del history[past:]
            for step in range(int(inputs["new_lengths"][row])):
                key, value = (inputs[name][row, step].double() for name in ("key", "value"))
                history.append((key.view(heads), value.view(heads)))
                outputs.append(_attend(self._case, inputs, history, row, step))
        width = inputs["query"].shape[2]
        return torch.stack(outputs).float() if outputs else torch.zeros(0, width)


def _attend(
    case: Case,
    inputs: Inputs,
    history: History,
    row: int,
    step: int,
) -> torch.Tensor:
    """Attend one query over the tokens it may see, head by head, with no cache and no mask.

    Tokens stand where they lie in a list of those that are seen, as StreamingLLM defines it: what
    counts is how far apart two of them are.
    """
    kept = min(case.options.kept, len(history))
    recent = case.window - case.options.kept if case.window else len(history)
    seen = history[:kept] + history[max(kept, len(history) - recent) :]
    keys, values = (torch.stack(part) for part in zip(*seen, strict=True))  # (n, K, D)
    places = torch.arange(len(seen))
    query = inputs["query"][row, step].double().view(1, case.kv_heads * case.group, -1)
    keys, query = _rotated(case, keys, places), _rotated(case, query, places[-1:])[0]
    distances = len(seen) - 1 - places
    heads = []
    for head in range(case.kv_heads * case.group):
        scores = keys[:, head // case.group] @ query[head] * case.attributes["scale"]
        scores = scores + case.options.kept_bias * (places < kept)
        if inputs["alibi_slopes"] is not None:
            scores = scores - inputs["alibi_slopes"][head] * distances
        if (table := inputs["distance_bias"]) is not None:
            scores = scores + table[head, distances.clamp(max=table.shape[1] - 1)]
        if inputs["sinks"] is not None:
            weights = torch.cat((scores, inputs["sinks"][head].view(1))).softmax(0)[:-1]
        else:
            weights = scores.softmax(0)
        heads.append(weights @ values[:, head // case.group])
    return torch.cat(heads)


def _rotated(case: Case, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rotate (n, heads, D) to places (n) as complex numbers, a second way to write RoPE."""
    pairs, interleaved = case.pairs, case.options.interleaved
    numbers = range(pairs)
    first = [2 * i if interleaved else i for i in numbers]
    second = [2 * i + 1 if interleaved else i + pairs for i in numbers]
    angles = angles_of(case, places).unsqueeze(1)  # (n, 1, R/2)
    turn = torch.complex(angles.cos(), angles.sin())
    turned = torch.complex(x[..., first], x[..., second]) * turn
    rotated = x.clone()
    rotated[..., first], rotated[..., second] = turned.real, turned.imag
    return rotated
