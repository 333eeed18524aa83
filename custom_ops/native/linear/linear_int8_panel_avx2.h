// Vectors of LinearInt8's panels with AVX2, but for the dot product.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "linear/linear_int8_panel.h"
#include "machine/digits_avx2.h"
#include "machine/vectors_avx2.h"

namespace gptoss {
namespace {

struct Avx2 : Floats8 {
  using Floats = Vector;
  using Integers = __m256i;

  using Floats8::load, Floats8::store;
  static Integers load(const unsigned char* address) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(address));
  }
  static void store(void* address, Integers x) {
    _mm256_store_si256(static_cast<__m256i*>(address), x);
  }
  static Integers broadcast_integer(const float* address) {
    return _mm256_castps_si256(_mm256_broadcast_ss(address));
  }
  static Integers zero_integers() { return _mm256_setzero_si256(); }
  static Integers shift_8(Integers x) { return _mm256_slli_epi32(x, 8); }
  static Integers add(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
  static Floats to_floats(Integers x) { return _mm256_cvtepi32_ps(x); }

  // Writes 32 integers and returns their scale.
  template <bool rounded>
  static float write_integers(const float* x, float largest, int32_t* out) {
    const auto [eights, scale] = to_integers<rounded>(x, largest);
    for (size_t i = 0; i < 4; ++i)
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * kLanes), eights[i]);
    return scale;
  }
};

}  // namespace
}  // namespace gptoss
