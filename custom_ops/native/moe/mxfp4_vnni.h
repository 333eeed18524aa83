// MXFP4 times tokens with AVX-512 VNNI, for any Decode (mxfp4_panel.h).
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_digits.h.
#pragma once

#include "moe/mxfp4_panel.h"

namespace gptoss {
namespace {

template <class Decode, size_t digits>
void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch, float* out,
              size_t stride) {
  const auto* quads =
      reinterpret_cast<const Quad<digits>*>(tokens.data) + tokens.first * quads_of(rows.width);
  multiply_many<Decode>(rows, quads, tokens.count, reinterpret_cast<PanelBlock*>(scratch), out,
                        stride);
}

template <class Decode, size_t digits>
constexpr Mxfp4Kernel kKernel = {1, packed_bytes<digits>, pack<digits>, scratch_bytes,
                                 multiply<Decode, digits>};

template <class Decode>
const Mxfp4Kernel& kernel(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return kKernel<Decode, 2>;
    case Activations::int8:
      return kKernel<Decode, 1>;
    default:
      return kKernel<Decode, 3>;
  }
}

}  // namespace
}  // namespace gptoss
