"""Every tolerance of the test suite, with its reason; tests hold no literals of their own."""

# One op in float32 against its float32 definition: another order of summation over at most a few hundred terms.
BODY_FLOAT32 = 2e-5
# The same with a 16-bit cache: both sides round alike, but a value on the edge may round to its other neighbour,
# one unit in the last place of the stored key or value.
BODY_FLOAT16_CACHE = 4e-3
BODY_BFLOAT16_CACHE = 3e-2
# Reference against transformers, logits of tiny models in float32: the same formula, matrix products of other shapes.
REFERENCE_LOGITS = 1e-4
# Package with portable bodies against transformers in float32.
PACKAGE_LOGITS = 2e-4
# Relative error (norms) of experts and projections in float32: dot products of a few hundred terms, summed otherwise.
BODY_EXPERTS = 2e-6
# Our error metrics in float64 against torch's: rounding of a short sum.
METRICS = 1e-6
