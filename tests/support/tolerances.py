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
# Native Linear against float64, as a share of Σ|x·w| + |b|: float32 sums of a few hundred terms. Seen: 4e-7.
NATIVE_LINEAR = 2e-6
# Native SinkAttention in float32 arithmetic against its definition on random caches of up to 3000 tokens. Seen: 3e-6.
NATIVE_ATTENTION = 1e-5
# The same with queries and softmax weights rounded to bfloat16 (2^-9 each) on values of size 1. Seen: 7e-3.
NATIVE_ATTENTION_BF16_PRODUCTS = 2e-2
