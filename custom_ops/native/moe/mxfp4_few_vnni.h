// Products of bytes with AVX-512 VNNI, for mxfp4_few_avx512.h.
//
// Included by files that are compiled with AVX-512 VNNI alone: everything is in an anonymous
// namespace (CMakeLists.txt says why).
#pragma once

#include "moe/mxfp4_few_avx512.h"

namespace gptoss {
namespace {

// Four products at a time, added up in 32 bits.
struct ByteDots {
  static constexpr bool kNarrow = false;
  static __m512i add_products(__m512i sum, __m512i weights, __m512i values) {
    return _mm512_dpbusd_epi32(sum, weights, values);
  }
  static __m512i widen(__m512i sum) { return sum; }
};

}  // namespace
}  // namespace gptoss
