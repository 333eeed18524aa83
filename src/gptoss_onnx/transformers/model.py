"""GptossOnnxForCausalLM: a package behind the interface of transformers' causal language models.

B batch, S columns of a call, V vocabulary.
"""

import os
from typing import Any, NoReturn, Self

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Session
from gptoss_onnx.transformers.cache import PackageCache
from gptoss_onnx.transformers.settings import generation_config, model_config

Tensor = torch.Tensor
OFFERED = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.ASSISTED_GENERATION,
)


class GptossOnnxForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]  # their __init_subclass__
    """A package that `pipeline("text-generation")` and `generate` run on.

    Greedy decoding, sampling, streamers, stopping criteria and assisted generation work; beams and
    contrastive search do not. The package computes where its session's provider says. `to` chooses
    only on which device tensors come back. A text ends with the longest sequence that the package
    takes, as with `Session.generate`.

    Attributes:
        session: what runs the package; closing it frees the weights.
    """

    main_input_name = "input_ids"
    _place: Tensor

    def __init__(self, session: Session) -> None:
        super().__init__(model_config(session.package))
        self.session = session
        self.generation_config = generation_config(session.package)
        # Nothing computes with it: it is where the tensors of calls come back to.
        self.register_buffer("_place", torch.zeros(0), persistent=False)
        self.eval()  # type: ignore[no-untyped-call]  # transformers annotates only part of its own

    @classmethod
    def from_pretrained(  # type: ignore[override]  # a package has no other options
        cls,
        package: str | os.PathLike[str],
        *,
        kernels: Kernels = "auto",
        activations: Activations = "exact",
        provider: Provider = "cpu",
        threads: int | None = None,
    ) -> Self:
        """Open a package folder; the arguments and the errors are those of `Session.open`."""
        return cls(Session.open(package, kernels, activations, provider, threads))

    @property
    def device(self) -> torch.device:
        """Where tensors come back to."""
        return self._place.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of logits: float32."""
        return torch.float32

    def new_cache(self) -> PackageCache:
        """Return an empty cache, to be passed as `past_key_values` and kept between calls."""
        return PackageCache(self.session)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: PackageCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run new tokens after what the cache holds.

        Args:
            input_ids: integers (B, S), padded anywhere if `attention_mask` says where.
            attention_mask: 1 for a token and 0 for padding, (B, columns so far + S); None if all
                new columns hold tokens.
            past_key_values: a cache of this model; None for a new one.
            labels: (B, S), −100 for what does not count; the mean cross-entropy is `loss` then.
            use_cache: False if no cache is to come back.
            logits_to_keep: how many last columns, or which, have logits; 0 for all.
            return_dict: False for a plain tuple.
            others: refused if they ask for anything.

        Returns:
            Logits float32 (B, kept, V), zeros where a column holds no token; and the cache.

        Raises InputError for what this model cannot do, and what `Session.forward` raises.
        """
        _refuse_others(others)
        cache = self.new_cache() if past_key_values is None else _expect_cache(past_key_values)
        ids, mask = _integers(input_ids), _mask(attention_mask)
        kept = _kept(logits_to_keep, ids.shape[1])
        logits = torch.from_numpy(cache.run(ids, mask, kept)).to(self.device)
        if use_cache is False and past_key_values is None:
            cache.close()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels.to(self.device), self.session.vocab)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=None if use_cache is False else cache
        )
        return output.to_tuple() if return_dict is False else output

    def save_pretrained(self, *names: Any, **options: Any) -> NoReturn:
        """Refuse: a package is copied as a folder."""
        raise InputError(f"save_pretrained: copy the folder {self.session.package.folder} instead")

    def push_to_hub(self, *names: Any, **options: Any) -> NoReturn:  # type: ignore[override]  # refuses all
        """Refuse: `gptoss-onnx push` uploads packages."""
        raise InputError("push_to_hub: use `gptoss-onnx push` instead")

    def _validate_generation_mode(
        self, generation_mode: GenerationMode, *settings: Any, **others: Any
    ) -> None:
        if generation_mode not in OFFERED:
            names = ", ".join(mode.value for mode in OFFERED)
            raise InputError(f"generate: found {generation_mode.value}, expected one of {names}")
        super()._validate_generation_mode(generation_mode, *settings, **others)  # type: ignore[misc]  # its self is a protocol

    def _prepare_cache_for_generation(  # type: ignore[override]  # the base returns nothing, too
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Give `generate` a cache of ours, and end texts where the package does."""
        named = generation_config.cache_implementation
        if named not in (None, "dynamic"):
            raise InputError(f"cache_implementation: found {named!r}, expected none")
        self._end_at_longest(generation_config, model_kwargs)
        given = model_kwargs.get("past_key_values")
        if given is not None:
            _expect_cache(given)._is_user_defined = True
            return
        if generation_config.use_cache is not False:
            cache = self.new_cache()
            if generation_config.is_assistant:
                cache.activate_past_recording()
            model_kwargs["past_key_values"] = cache

    def _end_at_longest(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> None:
        """Lower the limit on columns to what the row with the least padding can hold; its last
        token need not be run.
        """
        mask = model_kwargs.get("attention_mask")
        padding = 0 if mask is None else int((mask == 0).sum(dim=1).min())
        most = self.session.manifest.longest + 1 + padding
        generation_config.max_length = min(generation_config.max_length, most)


# The pipeline knows models by the names of their classes.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault("gptoss-onnx", GptossOnnxForCausalLM.__name__)


def _refuse_others(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value is not None and value is not False:
            raise InputError(f"{name}: a package cannot do this; leave it out")


def _expect_cache(cache: object) -> PackageCache:
    if not isinstance(cache, PackageCache):
        raise InputError(
            f"past_key_values: found {type(cache).__name__}, expected a cache that "
            "model.new_cache() made"
        )
    return cache


def _integers(input_ids: Tensor | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    if input_ids is None or input_ids.dim() != 2 or input_ids.is_floating_point():
        found = "none" if input_ids is None else f"{input_ids.dtype} {tuple(input_ids.shape)}"
        raise InputError(f"input_ids: found {found}, expected integers (batch, sequence)")
    return input_ids.cpu().numpy().astype(np.int64)


def _mask(attention_mask: Tensor | None) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        shape = tuple(attention_mask.shape)
        raise InputError(f"attention_mask: found shape {shape}, expected (batch, columns)")
    return np.asarray(attention_mask.cpu().numpy() != 0)


def _kept(logits_to_keep: int | Tensor, columns: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    every = np.arange(columns)
    if isinstance(logits_to_keep, int):
        return every[-logits_to_keep:]  # 0 keeps all
    return np.asarray(every[logits_to_keep.cpu().numpy()])
