"""Hold the reference and packages of an architecture to transformers, the implementation outside.

Two implementations that are both right differ by the order of their sums. How much that is, the
judge shows itself: it computes every logit with a cache and without one, and the largest
difference between the two is the gap.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import Sampling, Session
from support.tolerances import GAPS, LEAST_GAP
from support.transformers_models import Judged, write_by_transformers

TOKENS, PROMPT, GREEDY = 50, 7, 24


class Case:
    """One checkpoint that transformers wrote, with what transformers computes from it."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(judged.vocab_size, (TOKENS,), generator=generator).tolist()
        self.logits = judged.prefill(self.tokens)
        gap = float((judged.decode(self.tokens, PROMPT) - self.logits).abs().max())
        assert self.logits.std() > 0.3, "a model that says something"
        self.tolerance = GAPS * max(gap, LEAST_GAP * float(self.logits.abs().max()))

    @classmethod
    def write(
        cls, model_type: str, changes: Mapping[str, Any], folder: Path, *, sharded: bool = False
    ) -> "Case":
        """Let transformers write a tiny checkpoint, with `changes` to its config.json."""
        return cls(write_by_transformers(model_type, changes, folder, sharded=sharded))

    def check_reference(self, adapters: Sequence[Path] = ()) -> None:
        """Compare the PyTorch reference: all at once, and one token a call over the cache."""
        with open_checkpoint(self.judged.folder, adapters=adapters) as checkpoint:
            model = Decoder.from_checkpoint(checkpoint)
            self._check(model.score(self.tokens))
            self._check(_decode(model, self.tokens))

    def check_package(
        self,
        folder: Path,
        target: Literal["portable", "ort"],
        kernels: Literal["auto", "portable"],
        adapters: Sequence[Path] = (),
    ) -> None:
        """Export to `folder` unless it is there, and compare a session with the judge."""
        if not folder.exists():
            export(self.judged.folder, folder, target=target, adapters=adapters)
        with Session.open(folder, kernels=kernels, threads=1) as session:
            self._check(session.score(self.tokens, chunk=TOKENS))
            with session.new_cache(1, TOKENS) as cache:
                found = [session.forward([self.tokens[:PROMPT]], cache)]
                found += [session.forward([[token]], cache) for token in self.tokens[PROMPT:]]
            self._check(np.concatenate([logits[0] for logits in found]), self.logits[PROMPT - 1 :])
            prompt = self.tokens[:PROMPT]
            endless = Sampling(stop_tokens=())
            tokens = list(session.generate(prompt, endless, max_new_tokens=GREEDY))
            assert tokens == self.judged.greedy(prompt, GREEDY)

    def _check(self, found: Any, expected: torch.Tensor | None = None) -> None:
        expected = self.logits if expected is None else expected
        torch.testing.assert_close(torch.as_tensor(found), expected, atol=self.tolerance, rtol=0)


@torch.inference_mode()
def _decode(model: Decoder, tokens: list[int]) -> torch.Tensor:
    """Return the logits (T, V) of a prompt in one call and each further token in one."""
    cache, done, found = model.new_cache(1, len(tokens)), 0, []
    for piece in (tokens[:PROMPT], *([token] for token in tokens[PROMPT:])):
        past, new = torch.tensor([done]), torch.tensor([len(piece)])
        every = torch.arange(len(piece)).unsqueeze(0)
        logits, cache = model(torch.tensor([piece]), past, new, every, cache)
        found.append(logits[0])
        done += len(piece)
    return torch.cat(found)
