"""Every tolerance of the test suite, with its reason; tests hold no literals of their own."""

# One op in float32 against its float32 definition: another order of summation over at most a few
# hundred terms.
BODY_FLOAT32 = 2e-5
# The same with a 16-bit cache: both sides round alike, but a value on the edge may round to its
# other neighbour, one unit in the last place of the stored key or value.
BODY_FLOAT16_CACHE = 4e-3
BODY_BFLOAT16_CACHE = 3e-2
# Reference against transformers, logits of tiny models in float32: the same formula, matrix
# products of other shapes.
REFERENCE_LOGITS = 1e-4
# Package with portable bodies against transformers in float32.
PACKAGE_LOGITS = 2e-4
# Golden vectors of a package with weights in int8, by native kernels: at level amx LinearInt8
# multiplies two bfloat16 terms, 5e-6 a layer, and logits of random models are large (seen: 3e-4).
PACKAGE_LOGITS_INT8 = 1e-3
# Relative error (norms) of experts and projections in float32: dot products of a few hundred terms,
# summed otherwise.
BODY_EXPERTS = 2e-6
# Our error metrics in float64 against torch's: rounding of a short sum.
METRICS = 1e-6
# Native Linear against float64, as a share of Σ|x·w| + |b|: float32 sums of up to some thousand
# terms (seen: 4e-7).
NATIVE_LINEAR = 2e-6
# What a quantized weight may be off in steps of its scale: half a step, and what float32 rounds in
# scale and quotient.
INT8_HALF_STEP = 0.5 + 2e-5
# Native LinearInt8 against float64, as a share of Σ|x·w| + |b|. exact: as Linear; at level amx both
# operands are two bfloat16 terms without the smallest product, 3 · 2^-18 at worst. The others may
# round both operands to bfloat16.
NATIVE_INT8 = {"exact": 1.2e-5, "bf16": 8e-3, "int8": 8e-3}
# And of each term's block the share of the largest |x| that one digit's step is: three digits, two,
# one.
NATIVE_INT8_STEP = {"exact": 2**-23, "bf16": 2**-15, "int8": 2**-7}
# The same in norms, whose errors average: what mode exact promises a layer, and the others measured
# on normal numbers. `rounded` is against the definition on tokens rounded as the mode says.
NATIVE_INT8_NORM = {"exact": 1e-5, "bf16": 5e-3, "int8": 2e-2, "rounded": 1e-4}
# Native SinkAttention in float32 arithmetic against its definition on random caches of up to 3000
# tokens. Seen: 3e-6.
NATIVE_ATTENTION = 1e-5
# The same with queries and softmax weights rounded to bfloat16 (2^-9 each) on values of size 1.
# Seen: 7e-3.
NATIVE_ATTENTION_BF16_PRODUCTS = 2e-2
# SinkAttention, definition, body and kernel, against transformers' modules and StreamingLLM's plain
# definition over up to 300 tokens in float32. Seen: 3e-6.
ATTENTION_300 = 1e-5
# Native experts against the definition in float64, relative (norms), by activation mode. exact:
# what the mode promises; kernels reach a tenth of it. bf16 and int8: rounding the activations of
# two projections, 2^-9 and a 254th of each block's largest, and what cancels in a few tens of
# outputs widens it. Seen: 5e-7 … 2e-6, 7e-3, 2e-2.
NATIVE_EXPERTS = {"exact": 1e-5, "bf16": 3e-2, "int8": 1e-1}
# The same kernels at two CPU levels: sums in another order, and in bf16 and int8 an activation
# between the layers that rounds to its other neighbour because of it.
NATIVE_EXPERTS_LEVELS = {"exact": 1e-5, "bf16": 2e-3, "int8": 5e-3}
# The fuzzer's versions of the two above: among a hundred thousand calls, some have one token, one
# chosen expert and few outputs, where a single activation that rounds to its other neighbour shows;
# and with limit 0 and no biases little is left beside the rounding. Seen: int8 2.01e-1.
FUZZ_EXPERTS = {"exact": 1e-5, "bf16": 5e-2, "int8": 3e-1}
FUZZ_EXPERTS_LEVELS = {"exact": 1e-5, "bf16": 1e-2, "int8": 4e-2}
# And on top of both, how often what rounding the tokens to bfloat16 does to the definition; a step
# of int8 is four times as wide.
FUZZ_EXPERTS_ROUNDING = {"exact": 0.0, "bf16": 2.0, "int8": 8.0}
# Draws of a client's sampler against the distribution it samples, in standard deviations of a
# frequency: of some hundred frequencies with fixed seeds none lies further out by chance.
SAMPLING_SIGMAS = 5.0
# Scores of our sampler, in float64, against transformers' warpers in float32: a score of up to 400
# (logits of 20 over the least temperature tried) has its last place at 3e-5, and three steps round.
SAMPLER_FLOAT32 = 1e-4
# Probabilities of a sampler against the exact ones of the table that all clients share.
SAMPLER_PROBABILITIES = 1e-9
# Logits of a client against the Python session's, run in other chunks, by type of KV cache: the
# native kernels sum in another order, and a stored key or value on the edge rounds to its other
# neighbour.
CLIENT_LOGITS = {"float32": 1e-3, "bfloat16": 1e-1}

# Rows of a batch on target ort against the reference, or with a float16 cache against the row alone
# in calls of other lengths, where a stored key or value on the edge rounds to its other neighbour.
ORT_ROWS = {"float32": 2e-4, "float16": 2e-2}

# Logits of a row that has moved to a cache of other sizes against those of the row that stayed, by
# type of KV cache: kernels sum over a ring in the order of its slots, and a key or value on the
# edge rounds to its other neighbour.
MOVED_ROWS = {"float32": 1e-4, "bfloat16": 5e-2}

# Root mean square of what rounding trained MXFP4 experts to 4-bit integers loses, relative to that
# of the weights. The demo checkpoint's matrices lose 6.2 to 6.7 %, and 10.4 to 10.6 % with one step
# for all blocks.
INT4_ROUNDING = 0.08

# An architecture against transformers: so many times the difference that transformers has between
# its own cached and uncached forward, which shows what the order of float32 sums is worth there.
GAPS = 3
# The least that difference is taken for, as a share of the largest logit: a few steps of float32.
LEAST_GAP = 5e-7
# Sums of random products, one after the other, against what the error model of validation says of
# them, which is what a random walk of partial sums gives: at least this share, or it says too much.
DOT_SHARE = 0.4
# Router logits of tiny random models within which many tokens are near-tied. Rounding is less than
# a thousandth of it.
TIED_ROUTERS = 0.03

# Logits of a mutant against the healthy package's in the same kernels, from which on it is proved
# to differ: ten times what kernels and portable bodies differ by on a small model (1e-5).
MUTANT_DIFFERS = 1e-4

# Log-likelihood of a text by a package against the reference's, relative: a sum of many logarithms
# whose errors, 1e-5 each at most, have either sign.
LOG_LIKELIHOOD = 1e-5

# Sums of 32 squares in float32, or of thousands, against float64.
MXFP4_SUMS = 1e-5

# Sums in float64 of thousands of the same positive numbers, in two orders.
SUMS_IN_ANY_ORDER = 1e-12

# Root mean square of what rounding random experts to MXFP4 loses, relative to that of the weights.
# Normally distributed ones lose 11.1 to 11.3 %.
MXFP4_ROUNDING = 0.12

# Logits of a tiny model's graph in onnx.reference and in OpenVINO against ONNX Runtime's, by type
# of KV cache: sums in another order, and in 16 bits a stored key or value on the edge rounds to its
# other neighbour (seen: 1.8e-5, 4e-4).
OTHER_RUNTIME = {"float32": 1e-4, "float16": 4e-3}
