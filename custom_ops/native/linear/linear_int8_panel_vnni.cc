// LinearInt8 times several tokens with AVX-512 VNNI.
#include "linear/linear_int8_panel.h"
#include "machine/digits.h"

namespace gptoss {
namespace {

struct Avx512 : Floats16 {
  using Floats = Vector;
  using Integers = __m512i;
  static constexpr bool kWords = false;
  static constexpr int kOffset = 128;      // makes weights the unsigned side of a dot product
  static constexpr size_t kTileWidth = 5;  // 5 x 2 dots and as many sums, 2 weights and a token

  using Floats16::load, Floats16::store;
  static Integers load(const unsigned char* address) { return _mm512_load_si512(address); }
  static void store(void* address, Integers x) { _mm512_store_si512(address, x); }
  static Integers broadcast_integer(const float* address) {
    int32_t lane;
    __builtin_memcpy(&lane, address, sizeof lane);
    return _mm512_set1_epi32(lane);
  }
  static Integers zero_integers() { return _mm512_setzero_si512(); }
  static Integers dot(Integers sum, Integers weights, Integers tokens) {
    return _mm512_dpbusd_epi32(sum, weights, tokens);
  }
  static Integers shift_8(Integers x) { return _mm512_slli_epi32(x, 8); }
  static Integers add(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
  static Floats to_floats(Integers x) { return _mm512_cvtepi32_ps(x); }
  static Integers offset(Floats bytes) {
    return _mm512_xor_si512(_mm512_castps_si512(bytes),
                            _mm512_set1_epi8(static_cast<char>(kOffset)));
  }
  // Writes 32 integers and returns their scale.
  template <bool rounded>
  static float write_integers(const float* x, float largest, int32_t* out) {
    const auto [low, high, scale] = to_integers<rounded>(x, largest);
    _mm512_store_si512(out, low);
    _mm512_store_si512(out + kLanes, high);
    return scale;
  }
};

}  // namespace

void use_int8_panels_vnni(Activations activations, LinearKernels& kernels) {
  use_panels<Avx512>(activations, kernels);
}

}  // namespace gptoss
