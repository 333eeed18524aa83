"""ONNX signatures of the ops in `ai.gptoss`, version 1: the one place that fixes input order and
attribute names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from onnx.defs import OpSchema

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION

FLOAT = ("float",)
CACHE = ("float", "float16", "bfloat16")
WEIGHT = ("float", "float16", "bfloat16")
BYTES = ("uint8",)
INT8 = ("int8",)
INT32 = ("int32",)
INT64 = ("int64",)
BFLOAT16 = ("bfloat16",)
AttributeValue = int | float | str
_KINDS = {
    "i": OpSchema.AttrType.INT,
    "f": OpSchema.AttrType.FLOAT,
    "s": OpSchema.AttrType.STRING,
}


@dataclass(frozen=True)
class Operand:
    """One input or output: its name and the element types it may have; operands of one `group`
    share their type.
    """

    name: str
    types: tuple[str, ...]
    group: str
    optional: bool = False
    variadic: bool = False  # the last input: one or more, all of one type


@dataclass(frozen=True)
class Attribute:
    """One attribute: `i` int, `f` float or `s` string; with a default, a node may leave it out."""

    name: str
    kind: Literal["i", "f", "s"]
    default: AttributeValue | None = None

    @property
    def formal(self) -> OpSchema.Attribute:
        """The attribute as the ONNX schema declares it: without its default, which the exporter
        would write into every node.
        """
        required = self.default is None
        return OpSchema.Attribute(self.name, _KINDS[self.kind], "", required=required)


@dataclass(frozen=True)
class Signature:
    """Name, inputs, outputs and attributes of one op; an optional input may stand before others."""

    name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]

    def stated(self, attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """Return the attributes that a node states: all but those at their defaults; ONNX knows no
        truth values.
        """
        defaults = {attribute.name: attribute.default for attribute in self.attributes}
        return {
            name: int(value) if isinstance(value, bool) else value
            for name, value in attributes.items()
            if value != defaults[name]
        }

    @cached_property
    def schema(self) -> OpSchema:
        """The signature as an ONNX schema."""
        groups = {operand.group: operand.types for operand in (*self.inputs, *self.outputs)}
        return OpSchema(
            self.name,
            DOMAIN,
            DOMAIN_VERSION,
            inputs=[_formal(operand) for operand in self.inputs],
            outputs=[_formal(operand) for operand in self.outputs],
            type_constraints=[
                (group, [f"tensor({element})" for element in types], "")
                for group, types in groups.items()
            ],
            attributes=[attribute.formal for attribute in self.attributes],
        )


def _formal(operand: Operand) -> OpSchema.FormalParameter:
    option = OpSchema.FormalParameterOption
    return OpSchema.FormalParameter(
        operand.name,
        operand.group,
        param_option=option.Variadic
        if operand.variadic
        else option.Optional
        if operand.optional
        else option.Single,
    )


def _floats(*names: str, optional: bool = False) -> tuple[Operand, ...]:
    return tuple(Operand(name, FLOAT, "T", optional) for name in names)


SINK_ATTENTION = Signature(
    "SinkAttention",
    inputs=(
        *_floats("query", "key", "value"),
        Operand("past_key", CACHE, "C"),
        Operand("past_value", CACHE, "C"),
        Operand("past_lengths", INT64, "L"),
        Operand("new_lengths", INT64, "L"),
        *_floats("sinks", "cos", "sin", optional=True),
        *_floats("alibi_slopes", "distance_bias", "sink_cos", "sink_sin", optional=True),
    ),
    outputs=(
        *_floats("output"),
        Operand("present_key", CACHE, "C"),
        Operand("present_value", CACHE, "C"),
    ),
    attributes=(
        Attribute("num_heads", "i"),
        Attribute("kv_num_heads", "i"),
        Attribute("scale", "f"),
        Attribute("window", "i"),
        Attribute("interleaved", "i", 0),
        Attribute("sink_tokens", "i", 0),
        Attribute("sink_bias", "f", 0.0),
    ),
)
MOE_ATTRIBUTES = (
    Attribute("top_k", "i"),
    Attribute("alpha", "f"),
    Attribute("limit", "f"),
    Attribute("beta", "f", 1.0),
    Attribute("activation", "s", "swiglu"),
    Attribute("normalize", "i", 1),
)
MOE_DISPATCH = Signature(
    "MoEDispatch",
    inputs=(
        *_floats("hidden", "router_logits"),
        Operand("gate_up", WEIGHT, "W"),
        *_floats("gate_up_bias", optional=True),
        Operand("down", WEIGHT, "W"),
        *_floats("down_bias", optional=True),
    ),
    outputs=_floats("output"),
    attributes=(*MOE_ATTRIBUTES, Attribute("interleaved", "i", 1), Attribute("transposed", "i", 0)),
)
MOE_DISPATCH_MXFP4 = Signature(
    "MoEDispatchMXFP4",
    inputs=(
        *_floats("hidden", "router_logits"),
        Operand("gate_up_blocks", BYTES, "B"),
        Operand("gate_up_scales", BYTES, "B"),
        *_floats("gate_up_bias", optional=True),
        Operand("down_blocks", BYTES, "B"),
        Operand("down_scales", BYTES, "B"),
        *_floats("down_bias", optional=True),
    ),
    outputs=_floats("output"),
    attributes=MOE_ATTRIBUTES,
)
# `weights` are E gates, E ups, E downs: matrices that lie apart.
MOE_DISPATCH_SEPARATE = Signature(
    "MoEDispatchSeparate",
    inputs=(
        *_floats("hidden", "router_logits"),
        Operand("weights", WEIGHT, "W", variadic=True),
    ),
    outputs=_floats("output"),
    attributes=tuple(a for a in MOE_ATTRIBUTES if a.name != "activation"),
)
LINEAR = Signature(
    "Linear",
    inputs=(
        *_floats("x"),
        Operand("weight", WEIGHT, "W"),
        *_floats("bias", optional=True),
    ),
    outputs=_floats("output"),
    attributes=(Attribute("transposed", "i", 0),),
)
LINEAR_INT8 = Signature(
    "LinearInt8",
    inputs=(
        *_floats("x"),
        Operand("weight", INT8, "Q"),
        *_floats("scales"),
        *_floats("bias", optional=True),
    ),
    outputs=_floats("output"),
    attributes=(),
)
LINEAR_PACKED = Signature(
    "LinearPacked",
    inputs=(
        *_floats("x"),
        Operand("low", BYTES, "B"),
        Operand("high", BYTES, "B"),
        Operand("bases", BYTES, "B"),
        Operand("positions", INT32, "P"),
        Operand("values", BFLOAT16, "V"),
        *_floats("bias", optional=True),
    ),
    outputs=_floats("output"),
    attributes=(),
)
SIGNATURES = {
    signature.name: signature
    for signature in (
        SINK_ATTENTION,
        MOE_DISPATCH,
        MOE_DISPATCH_MXFP4,
        MOE_DISPATCH_SEPARATE,
        LINEAR,
        LINEAR_INT8,
        LINEAR_PACKED,
    )
}
