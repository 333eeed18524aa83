"""Session: an opened package that computes logits and generates tokens; one serves many KV caches.

B batch, S new tokens, V vocabulary, T tokens of one sequence.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import folder_path, integer
from gptoss_onnx.runtime.calls import run_request
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.generation import Generation
from gptoss_onnx.runtime.harmony_message import HarmonyDelta
from gptoss_onnx.runtime.kernels import choose_kernels
from gptoss_onnx.runtime.kv_cache import PREFILL_CHUNK, KVCache, expect_cache
from gptoss_onnx.runtime.messages import Message
from gptoss_onnx.runtime.open_graph import OpenGraph
from gptoss_onnx.runtime.options import ChatOptions, GenerateOptions, TextOptions
from gptoss_onnx.runtime.package_check import open_whole
from gptoss_onnx.runtime.request import Request
from gptoss_onnx.runtime.runnable import RunnableGraph
from gptoss_onnx.runtime.sampling import Sampling, chosen
from gptoss_onnx.runtime.scoring import score
from gptoss_onnx.runtime.speculation.speculation import Speculation
from gptoss_onnx.runtime.target import RunningKernels, contract_of
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.runtime.text_generation import Prompt, TextGeneration, stream_text

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 256
MOST_THREADS = 1024  # ONNX Runtime starts as many as it is asked for, and hangs on 100,000


class Session(Closing):
    """A package opened for running; a context manager that frees the weights.

    Attributes:
        package: the folder and its manifest.
        kernels: `native`, `portable` or `contrib` (target `ort`), what runs.
        activations: `exact`, `bf16` or `int8`.
        provider: `cpu` or `cuda`.
        contract: what the package's target takes and gives.
        vocab: V.
    """

    def __init__(
        self,
        graph: RunnableGraph,
        package: Package,
        kernels: RunningKernels,
        activations: Activations,
        provider: Provider,
    ) -> None:
        self.package, self.kernels = package, kernels
        self.activations, self.provider = activations, provider
        self.contract = contract_of(package.manifest)
        self.vocab = package.manifest.vocab_size
        self._graph = graph

    @classmethod
    def open(
        cls,
        package: str | os.PathLike[str],
        kernels: Kernels = "auto",
        activations: Activations = "exact",
        provider: Provider = "cpu",
        threads: int | None = None,
    ) -> Self:
        """Open a package folder.

        Args:
            package: folder written by `gptoss-onnx export`.
            kernels: `native`, `portable`, or `auto`: native where every op of the graph has a
                kernel. For a package of target `ort` only `auto`.
            activations: what the native kernels multiply, in target `ort` the experts: `bf16` (not
                there) and `int8` are lossy.
            provider: `cpu` or `cuda`; the caches live there.
            threads: threads within an op, 1 to 1024; None leaves it to ONNX Runtime (one a core).

        Raises:
            PackageError: it is no package, has changed since it was written, or ONNX Runtime cannot
                load it.
            RuntimeUnavailable: ONNX Runtime, the provider or the kernels asked for are not
                available here.
            InputError: an argument has no such value.
        """
        folder = folder_path("package", package)
        threads = None if threads is None else integer("threads", threads, 1, MOST_THREADS)
        opened = open_whole(folder)
        choice = choose_kernels(opened.manifest, kernels, activations, provider)
        graph = OpenGraph.load(opened, choice, activations, provider, threads)
        running = f"{choice.kernels} kernels ({choice.reason})"
        logger.info("%s: %s, provider %s", opened.folder, running, provider)
        return cls(graph, opened, choice.kernels, activations, provider)

    @property
    def manifest(self) -> Manifest:
        """The package's manifest."""
        return self.package.manifest

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The package's tokenizer, read at first use; raises PackageError if it has none."""
        return Tokenizer.open(self.package.folder)

    def new_cache(
        self, batch: int, capacity: int, reserve: int = 0, *, chunk: int = PREFILL_CHUNK
    ) -> KVCache:
        """Return an empty cache for `batch` rows of up to `capacity` tokens.

        `reserve` is how far a row can be rewound at any time, in tokens before the beginning of its
        last call; `chunk` the most columns one call of the graph takes (longer inputs are split).
        Both enlarge window layers.
        """
        return self._graph.new_cache(batch, capacity, reserve, chunk)

    def forward(
        self,
        input_ids: ArrayLike,
        cache: KVCache,
        new_lengths: ArrayLike | None = None,
        logit_positions: ArrayLike | None = None,
        rows: int | None = None,
    ) -> NDArray[np.float32]:
        """Run new tokens after what `cache` holds, advance it, and return logits.

        Args:
            input_ids: integers (B, S), right-padded; what stands in the padding is not read.
            cache: of this session, or of another of the same package and provider.
            new_lengths: integers (B), real tokens of each row, 0 to S; S if omitted.
            logit_positions: integers (B, kept), 0 ≤ i < S, whose logits are wanted; if omitted,
                each row's last new token.
            rows: if given, B: only so many first rows of the cache run, and others cost nothing.

        Returns:
            float32 (B, kept, V); zeros where a position lies in a row's padding, or a row has no
            new token.

        Raises:
            InputError: something is out of range, a row would exceed the capacity or the model's
                longest sequence, or another call uses the cache; the cache is unchanged then.
            PackageError: weights have changed (looked at when the cache is empty), or a float16
                cache overflowed.
            RuntimeUnavailable: ONNX Runtime failed, or the logits have no memory; earlier chunks
                stay in the cache.
        """
        expect_cache(cache)
        batch = cache.batch if rows is None else integer("rows", rows, 1, cache.batch)
        request = Request.parse(input_ids, new_lengths, logit_positions, batch, self.vocab)
        with cache.use:
            binding, part = self._graph.binding(cache, batch), cache.part(batch)
            part.check_call(request.new_lengths, self.manifest.longest)
            if not cache.lengths.any():
                self.check_weights()
            return run_request(binding, part, request, self.vocab)

    def score(
        self,
        token_ids: Sequence[int] | NDArray[Any],
        chunk: int | None = None,
        positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits of every position of one sequence, or of those at `positions`, float32
        (kept, V), `chunk` tokens a call.
        """
        return score(self, token_ids, chunk, positions)

    @overload
    def generate(
        self,
        token_ids: Sequence[Sequence[int]],
        sampling: Sampling | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation[list[int | None]]: ...

    @overload
    def generate(
        self,
        token_ids: Sequence[int] | NDArray[Any],
        sampling: Sampling | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation[int]: ...

    def generate(
        self,
        token_ids: Sequence[int] | Sequence[Sequence[int]] | NDArray[Any],
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        cache: KVCache | None = None,
        speculate: int | Speculation = 0,
        draft: "Session | None" = None,
    ) -> Generation[Any]:
        """Continue one sequence, or several at once; nothing runs before the first token is asked
        for.

        Args:
            token_ids: prompt of one sequence, or a list of prompts.
            sampling: how tokens are chosen and what ends a row; if omitted, greedy, ended by the
                package's end-of-text tokens.
            max_new_tokens: tokens to generate a row at most.
            cache: the generation continues after what this cache holds, and leaves its tokens in
                it. If omitted, a temporary cache is made, and freed at the end.
            speculate: for one sequence, how many tokens a call may guess, 1 to 64, by what followed
                the same tokens before. The model checks each guess. 0 guesses none.
            draft: a session of a smaller model with the same vocabulary, which guesses instead.

        Returns:
            An iterator of token ids for one sequence; of lists for several, with None for rows
            that have finished. `Generation` also has the finish reasons and the timings.

        Raises InputError for wrong arguments. What `forward` raises comes with the tokens.
        """
        settings = chosen(sampling)
        expect_cache(cache, optional=True)
        return Generation.of(self, token_ids, settings, max_new_tokens, cache, speculate, draft)

    @overload
    def stream_text(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        **options: Unpack[TextOptions],
    ) -> TextGeneration[str]: ...

    @overload
    def stream_text(
        self,
        prompt: Sequence[Message],
        sampling: Sampling | None = None,
        **options: Unpack[ChatOptions],
    ) -> TextGeneration[HarmonyDelta]: ...

    def stream_text(
        self,
        prompt: str | Sequence[int] | Sequence[Message],
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int | None = None,
        cache: KVCache | None = None,
        variables: Mapping[str, Any] | None = None,
        speculate: int | Speculation = 0,
        draft: "Session | None" = None,
    ) -> TextGeneration[Any]:
        """Continue a text, or answer a conversation, as text; nothing runs before the first piece
        is asked for.

        Args:
            prompt: a text or token ids to continue, or messages with `role` and `content`.
            sampling: as in `generate`. Stop texts are not looked for in thoughts. Omitted stop
                tokens mean the package's, and of a chat those that end an answer of gpt-oss.
            max_new_tokens: if omitted, 256, and 4096 for a conversation with a model that thinks
                first; never more than the model takes.
            cache: as in `generate`.
            variables: of the chat template, such as `reasoning_effort` and `tools`.
            speculate: as in `generate`.
            draft: as in `generate`.

        Returns:
            An iterator of texts, and for a conversation of `HarmonyDelta`, which tells thoughts
            (`kind` is `reasoning`) from the answer (`content`); see `TextGeneration`.

        Raises:
            InputError: the prompt is empty, too long, or no text, or the template refuses it.
            PackageError: no tokenizer or chat template, or a damaged one.
        """
        settings = chosen(sampling)
        expect_cache(cache, optional=True)
        encoded = Prompt.of(prompt, self.tokenizer, variables)
        return stream_text(
            self,
            encoded,
            self.tokenizer,
            settings,
            max_new_tokens,
            cache,
            speculate=speculate,
            draft=draft,
        )

    def check_weights(self) -> None:
        """Raise PackageError if a weight file has changed since it was opened.

        Every generation, and every `forward` of an empty cache, begins with it: microseconds.
        """
        self._graph.check_weights()

    def close(self) -> None:
        """Refuse further calls, and free the weights once those under way return; caches stay."""
        self._graph.close()
