// LinearInt8 times several tokens with AVX-512 VNNI.
#include "linear/linear_int8_panel.h"
#include "machine/digits.h"

namespace gptoss {
namespace {

struct Avx512 {
  using Floats = __m512;
  using Integers = __m512i;
  static constexpr size_t kLanes = gptoss::kLanes;
  static constexpr int kOffset = 128;      // makes weights the unsigned side of a dot product
  static constexpr size_t kTileWidth = 5;  // 5 x 2 dots and as many sums, 2 weights and a token

  static __mmask16 first(size_t some) {
    return static_cast<__mmask16>(some >= kLanes ? 0xffff : (1u << some) - 1);
  }
  static Integers load(const unsigned char* address) { return _mm512_load_si512(address); }
  static Floats load(const float* address) { return _mm512_load_ps(address); }
  static Floats load_some(const float* address, size_t some) {
    return _mm512_maskz_loadu_ps(first(some), address);
  }
  static void store(void* address, Integers x) { _mm512_store_si512(address, x); }
  static void store_some(float* address, size_t some, Floats x) {
    _mm512_mask_storeu_ps(address, first(some), x);
  }
  static Floats broadcast(const float* address) { return _mm512_set1_ps(*address); }
  static Integers broadcast_integer(const float* address) {
    int32_t lane;
    __builtin_memcpy(&lane, address, sizeof lane);
    return _mm512_set1_epi32(lane);
  }
  static Floats zero() { return _mm512_setzero_ps(); }
  static Integers zero_integers() { return _mm512_setzero_si512(); }
  static Integers dot(Integers sum, Integers weights, Integers tokens) {
    return _mm512_dpbusd_epi32(sum, weights, tokens);
  }
  static Integers shift_8(Integers x) { return _mm512_slli_epi32(x, 8); }
  static Integers add(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
  static Floats sum(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats to_floats(Integers x) { return _mm512_cvtepi32_ps(x); }
  static Floats product(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats add_product(Floats sum, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, sum); }
  static Integers offset(Integers x) {
    return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(kOffset)));
  }

  template <class Row>
  static Integers load_rows(const Row& row) {
    const auto at = [&](size_t i) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row(i)));
    };
    __m512i rows = _mm512_castsi128_si512(at(0));
    rows = _mm512_inserti32x4(rows, at(1), 1);
    rows = _mm512_inserti32x4(rows, at(2), 2);
    return _mm512_inserti32x4(rows, at(3), 3);
  }
  // Writes 32 integers and returns their scale.
  template <bool rounded>
  static float write_integers(const float* x, float largest, int32_t* out) {
    const auto [low, high, scale] = to_integers<rounded>(x, largest);
    _mm512_store_si512(out, low);
    _mm512_store_si512(out + kLanes, high);
    return scale;
  }

  static Integers unpack_low_32(Integers a, Integers b) { return _mm512_unpacklo_epi32(a, b); }
  static Integers unpack_high_32(Integers a, Integers b) { return _mm512_unpackhi_epi32(a, b); }
  static Integers unpack_low_64(Integers a, Integers b) { return _mm512_unpacklo_epi64(a, b); }
  static Integers unpack_high_64(Integers a, Integers b) { return _mm512_unpackhi_epi64(a, b); }
};

}  // namespace

void use_int8_panels_vnni(Activations activations, LinearKernels& kernels) {
  use_panels<Avx512>(activations, kernels);
}

}  // namespace gptoss
