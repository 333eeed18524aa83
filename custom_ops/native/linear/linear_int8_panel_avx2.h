// Vectors of LinearInt8's panels with AVX2, but for the dot product.
//
// Included by files that are compiled with AVX2 alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include "linear/linear_int8_panel.h"
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

  // As to_integers of machine/digits.h, which is of AVX-512.
  template <bool rounded>
  static float write_integers(const float* x, float largest, int32_t* out) {
    constexpr size_t vectors = kScaleBlock / kLanes;
    Floats values[vectors];
    Integers greatest_bits = zero_integers();
    for (size_t i = 0; i < vectors; ++i) {
      Integers bits = _mm256_castps_si256(_mm256_loadu_ps(x + i * kLanes));
      if constexpr (rounded) {
        const Integers odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        bits = add(bits, add(odd, _mm256_set1_epi32(0x7fff)));
        bits = _mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
      }
      values[i] = _mm256_castsi256_ps(bits);
      greatest_bits =
          _mm256_max_epi32(greatest_bits, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    // As bits, whose order is that of the numbers, with NaN and infinity on top.
    alignas(32) int32_t magnitudes[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(magnitudes), greatest_bits);
    int32_t most = 0;
    for (const int32_t magnitude : magnitudes) most = magnitude > most ? magnitude : most;
    float greatest;
    __builtin_memcpy(&greatest, &most, sizeof greatest);
    const bool finite = greatest <= 0x1.fffffep127f, usable = finite && greatest >= 0x1p-100f;
    const Floats inverse = _mm256_set1_ps(usable ? largest / greatest : 0.0f);
    for (size_t i = 0; i < vectors; ++i) {
      const Integers integers =
          usable ? _mm256_cvtps_epi32(product(values[i], inverse)) : zero_integers();
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * kLanes), integers);
    }
    return finite ? (usable ? greatest / largest : 0.0f) : greatest - greatest;
  }
};

}  // namespace
}  // namespace gptoss
