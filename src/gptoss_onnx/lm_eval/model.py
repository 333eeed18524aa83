"""`gptoss-onnx`, a model of lm-evaluation-harness: importing this module registers it."""

import logging
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.errors import InputError
from gptoss_onnx.lm_eval.answers import answers
from gptoss_onnx.lm_eval.scoring import Scorer
from gptoss_onnx.package import TOKENIZER_CONFIG, read_own_json
from gptoss_onnx.runtime import Sampling, Session

NAME = "gptoss-onnx"
MOST_NEW = 256  # tokens of an answer where a task names no number
AUTO_BATCH = 8

logger = logging.getLogger(__name__)


@register_model(NAME)
class PackageModel(TemplateLM):  # type: ignore[misc]  # mypy does not see the base
    """A package as a model that the harness scores.

    Args:
        package: folder written by `gptoss-onnx export`.
        kernels, activations, provider, threads: as for `Session.open`.
        max_length: the most tokens that a prediction looks at; None is what the model takes.
        max_gen_toks: new tokens of an answer where a task names no number.
        batch_size: prompts that are answered together.
        prefix_token_id: the token before a text that has no context; None is the tokenizer's
            beginning of text, else the package's end of text.
        max_batch_size, device: not used. The harness gives both to each model, and without a word
            of the user's the device `cuda:0`; here `provider` chooses.

    Raises:
        InputError, PackageError, RuntimeUnavailable: as `Session.open`.
    """

    def __init__(
        self,
        package: str,
        kernels: Kernels = "auto",
        activations: Activations = "exact",
        provider: Provider = "cpu",
        threads: int | None = None,
        max_length: int | None = None,
        max_gen_toks: int = MOST_NEW,
        batch_size: int | str | None = 1,
        prefix_token_id: int | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = _batch(batch_size)
        self._prefix, self.max_gen_toks = prefix_token_id, max_gen_toks
        self._session = Session.open(package, kernels, activations, provider, threads)
        self._scorer = Scorer(self._session, max_length)
        self.max_length = self._scorer.longest

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        ends = self._session.package.eos_tokens
        if not ends:
            raise InputError(
                f"{self._session.package.folder}: it names no end of text, expected one before a "
                "text without context; give prefix_token_id=ID in --model_args"
            )
        return ends[0]

    @cached_property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        if self._prefix is not None:
            return self._prefix
        entry = read_own_json(self._session.package.folder, TOKENIZER_CONFIG).get("bos_token")
        spelling = entry.get("content") if isinstance(entry, dict) else entry
        begin = self._session.tokenizer.special_tokens.get(str(spelling))
        return self.eot_token_id if begin is None else begin

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **others: Any
    ) -> list[int]:
        """Return the token ids of a text; special tokens spelled out in it become their ids."""
        return self._session.tokenizer.encode(string, bool(add_special_tokens))

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of each whole text."""
        found = []
        for (text,) in (request.args for request in requests):
            total = self._scorer.rolling(self.tok_encode(text), self.prefix_token_id)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            found.append(total)
        return found

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **others: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        found = []
        for (words, _, _), score in zip(requests, self._scorer.scores(pairs), strict=True):
            result = (score.log_likelihood, score.is_greedy)
            self.cache_hook.add_partial("loglikelihood", words, result)
            found.append(result)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each request; those with the same settings run in batches."""
        wanted = [request.args for request in requests]
        order = sorted(range(len(wanted)), key=lambda index: (str(wanted[index][1]), index))
        found = [""] * len(wanted)
        for _, group in groupby(order, key=lambda index: str(wanted[index][1])):
            indices = list(group)
            settings = wanted[indices[0]][1]
            prompts = [
                self.tok_encode(wanted[index][0]) or [self.prefix_token_id] for index in indices
            ]
            said = answers(
                self._session,
                prompts,
                _sampling(settings),
                int(settings.get("max_gen_toks", self.max_gen_toks)),
                self.max_length,
                self.batch_size,
            )
            for index, text in zip(indices, said, strict=True):
                self.cache_hook.add_partial("generate_until", wanted[index], text)
                found[index] = text
        return found

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the template's text, which the harness keeps with its results."""
        return self._session.tokenizer.chat_template.source if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return the text of a conversation; without `add_generation_prompt` it ends with the
        content of the last message, which goes on.
        """
        template = self._session.tokenizer.chat_template
        text = template.render(chat_history, add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)]

    @property
    def tokenizer_name(self) -> str:
        """What the harness names its cache of requests by."""
        return str(self._session.package.folder).replace("/", "__")


def _batch(size: int | str | None) -> int:
    if isinstance(size, str) and size.startswith("auto"):
        return AUTO_BATCH
    if size is None:
        return 1
    if not str(size).isdigit() or int(size) < 1:
        raise InputError(f"batch_size: found {size!r}, expected 1 or more, or auto")
    return int(size)


def _sampling(settings: dict[str, Any]) -> Sampling:
    """Return what a task asks for, in the harness's words for transformers' settings."""
    until = settings.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(text for text in until if text)
    temperature = float(settings.get("temperature") or 0.0)
    if not settings.get("do_sample", temperature > 0):
        temperature = 0.0
    return Sampling(
        temperature=temperature,
        top_k=int(settings.get("top_k") or 0),
        top_p=float(settings.get("top_p") or 1.0),
        min_p=float(settings.get("min_p") or 0.0),
        repetition_penalty=float(settings.get("repetition_penalty") or 1.0),
        seed=0,
        stop=stop,
    )
