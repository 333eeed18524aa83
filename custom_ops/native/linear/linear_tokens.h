// The tokens of Linear and LinearInt8 as their kernels want them: rounded, paired, split into
// terms.
#pragma once

#include <cstddef>

#include "machine/activations.h"
#include "linear/linear_kernels.h"

namespace gptoss {

// Lanes of one token of `depth` values; `format` is not packed.
size_t lanes_of(TokenFormat format, size_t depth);

// Writes the lanes of one token. All formats but float32 and those of several terms round it
// to bfloat16.
void format_token(const float* x, size_t depth, TokenFormat format, Activations activations,
                  float* lanes) noexcept;

// The same of the values [first, first + count) alone, which x holds; lane l lies at lanes[l ·
// stride]. `first` is a multiple of 32; the last piece of a token fills up its lanes.
void format_piece(const float* x, size_t first, size_t count, size_t depth, TokenFormat format,
                  Activations activations, float* lanes, size_t stride) noexcept;

}  // namespace gptoss
