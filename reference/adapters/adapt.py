"""`adapt`: a checkpoint's parameters with adapters added, as computations that read a row at a
time.

Several adapters are added in their order; sums are float32 and are rounded once, at the end. Layers
whose MXFP4 experts an adapter touches have bfloat16 experts, which lie as (E, out, in), the order
of the blocks. A tied lm_head stays tied, and changes with the embedding, as in PEFT's merge; it is
a tensor of its own where an adapter holds one of the two in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gptoss_onnx.checkpoint.adapter import AdapterFiles
from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.names import plain_name
from gptoss_onnx.checkpoint.product import Product
from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.choices import AdapterMode
from gptoss_onnx.layer_names import layer_of
from gptoss_onnx.reference.adapters.base import Base
from gptoss_onnx.reference.adapters.beside import beside, note_no_products
from gptoss_onnx.reference.adapters.low_rank import Adapted, BiasSum, LowRank, Replaced
from gptoss_onnx.reference.adapters.targets import EMBEDDING, LM_HEAD, Targets
from gptoss_onnx.reference.adapters.terms import Changes, changes_of
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.mxfp4_rows import Mxfp4Rows


@dataclass(frozen=True)
class AdaptedModel:
    """A checkpoint with adapters.

    Attributes:
        config: of the model.
        parameters: by the decoder's names, in the order of the computation.
        products: by the names of projections, those that stay beside the weights.
    """

    config: DecoderConfig
    parameters: dict[str, Parameter]
    products: dict[str, Product]


def adapt(base: Base, adapters: Sequence[AdapterFiles], mode: AdapterMode) -> AdaptedModel:
    """Return the configuration and the parameters of a checkpoint with adapters.

    In mode `runtime` there is one, of projections alone, and its matrices become parameters.
    Raises CheckpointError for the first adapter that does not fit the checkpoint, with everything
    that is wrong with it.
    """
    base = _untied(base, adapters)
    as_numbers = _storing(base.config, range(base.config.num_layers))
    with torch.device("meta"):
        decoder = Decoder(as_numbers)
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    targets = Targets(base.architecture, base.names, decoder, as_numbers.tied)
    every: list[Changes] = []
    for adapter in adapters:
        problems = Problems()
        changes = changes_of(adapter, targets, shapes, problems)
        if mode == "runtime":
            note_no_products(changes, decoder, adapters, problems)
        _note_conflicts(base, changes, every, problems)
        problems.check(str(adapter.folder.path))
        every.append(changes)
    if mode == "runtime":
        return AdaptedModel(base.config, *beside(base, every[0]))
    touched = {layer_of(name) for one in every for name in one.names if name not in base.parameters}
    config = _storing(base.config, [layer for layer in touched if layer is not None])
    with torch.device("meta"):
        order = Decoder(config).state_dict()
    return AdaptedModel(config, {name: _parameter(base, name, shapes, every) for name in order}, {})


def _storing(config: DecoderConfig, layers: Sequence[int] | range) -> DecoderConfig:
    """Return a configuration in which the MXFP4 experts of these layers are numbers."""
    changed = list(config.layers)
    for index in layers:
        part = changed[index].feed_forward
        if isinstance(part, ExpertsConfig) and part.storage == "mxfp4":
            changed[index] = replace(changed[index], feed_forward=replace(part, storage="rows"))
    return replace(config, layers=tuple(changed))


def _untied(base: Base, adapters: Sequence[AdapterFiles]) -> Base:
    """Return the checkpoint with an lm_head of its own where an adapter holds the embedding or the
    head in full.
    """
    embedding = base.architecture.stored_name(EMBEDDING, base.names)
    spelt = {LM_HEAD, embedding, f"{base.architecture.prefix}{embedding}"}
    held = {plain_name(name) for one in adapters for name in one.shards.tensors}
    if not base.config.tied or not spelt & held:
        return base
    head = replace(base.parameters[EMBEDDING], name=LM_HEAD)
    parameters = {**base.parameters, LM_HEAD: head}
    return replace(base, config=replace(base.config, tied=False), parameters=parameters)


def _note_conflicts(
    base: Base, changes: Changes, before: Sequence[Changes], problems: Problems
) -> None:
    """Note what cannot be computed whatever the shapes are."""
    for name, info in changes.replaced.items():
        if any(name in one.names for one in before):
            problems.add(
                f"{info.name}: found in full, expected no such weight, as an adapter before this "
                "one changes it as well"
            )
        if name not in base.parameters:
            problems.add(
                f"{info.name}: found in full, expected no such weight, as the base's are MXFP4"
            )
    for name, terms in changes.added.items():
        others = [term for one in before for term in one.added.get(name, ())]
        several = [*others, *terms]
        dora = [term for term in several if isinstance(term, LowRank) and term.magnitude]
        if dora and len(several) > 1:
            problems.add(
                f"{dora[0].a.name}: found DoRA and another adapter of the same weight, expected "
                "one adapter: DoRA is not a sum"
            )


def _parameter(
    base: Base, name: str, shapes: Mapping[str, tuple[int, ...]], every: Sequence[Changes]
) -> Parameter:
    """Return a parameter with what the adapters do to it."""
    added = tuple(term for changes in every for term in changes.added.get(name, ()))
    parameter = base.parameters.get(name)
    if parameter is None:
        parameter = _numbers(base, name, shapes[name], "F32" if added else "BF16")
        return _adapted(parameter, added, "BF16")
    for changes in every:
        if name in changes.replaced:
            computed = Replaced(changes.replaced[name], parameter.dtype)
            parameter = replace(parameter, sources=(), computed=computed)
    return _adapted(parameter, added, parameter.dtype)


def _adapted(parameter: Parameter, added: Sequence[LowRank | BiasSum], dtype: str) -> Parameter:
    if not added:
        return parameter
    return replace(parameter, dtype=dtype, computed=Adapted(parameter, tuple(added), dtype))


def _numbers(base: Base, name: str, shape: tuple[int, ...], dtype: str) -> Parameter:
    """Return the numbers that MXFP4 experts stand for."""
    blocks, scales = (base.parameters[f"{name}_{kind}"] for kind in ("blocks", "scales"))
    (stored_blocks,), (stored_scales,) = blocks.sources, scales.sources
    stored = base.architecture.stored_name(name, base.names)
    computed = Mxfp4Rows(stored_blocks, stored_scales, dtype)
    return Parameter(stored, dtype, shape, blocks.sources, computed)
