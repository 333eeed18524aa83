// LinearInt8 with AVX2 and FMA: few tokens by rows; in modes bf16 and int8, many in words.
#include "linear/linear_blocks.h"
#include "machine/vectors_avx2.h"

namespace gptoss {
namespace {

// Few tokens, in float32. A block's products are added up before they meet its scale: one
// multiplication of a register in place of four.
struct Int8Rows {
  using Vector = Floats8::Vector;
  static constexpr size_t kVectors = kScaleBlock / Floats8::kLanes;

  template <size_t kTokens, size_t kRows>
  static void multiply(const LinearCall& call, size_t m, size_t step, size_t first_token) {
    const size_t blocks = call.depth / kScaleBlock;
    const float* x = call.x + first_token * call.lanes;
    const unsigned char* weights = call.weight + m * call.row_bytes;
    const unsigned char* scales = call.scales + m * blocks * sizeof(float);
    Vector sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t t = 0; t < kTokens; ++t) sums[r][t] = Floats8::zero();
    }
    for (size_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const unsigned char* place = weights + r * step * call.row_bytes + block * kScaleBlock;
        __builtin_prefetch(place + kRowAhead);
        float factor;  // which may lie at an odd address
        __builtin_memcpy(&factor, scales + (r * step * blocks + block) * sizeof factor,
                         sizeof factor);
        const Vector scale = Floats8::broadcast(factor);
        Vector some[kVectors];
#pragma GCC unroll 4
        for (size_t i = 0; i < kVectors; ++i)
          some[i] = Floats8::from_int8(place + i * Floats8::kLanes);
#pragma GCC unroll 4
        for (size_t t = 0; t < kTokens; ++t) {
          const float* values = x + t * call.lanes + block * kScaleBlock;
          Vector sum = Floats8::product(some[0], Floats8::load(values));
#pragma GCC unroll 4
          for (size_t i = 1; i < kVectors; ++i)
            sum = Floats8::add_product(sum, some[i], Floats8::load(values + i * Floats8::kLanes));
          sums[r][t] = Floats8::add_product(sums[r][t], sum, scale);
        }
      }
    }
    write_totals<Floats8>(call, m, step, first_token, sums);
  }

  static void product(const LinearCall& call, size_t begin, size_t end) noexcept {
    multiply_streams<Int8Rows, 4, 4>(call, begin, end);
  }
};

}  // namespace

LinearKernels linear_int8_avx2(Activations activations) {
  LinearKernels kernels =
      kernels_of<Floats8, FloatProducts<Floats8>, Scaled<Floats8>>(TokenFormat::float32);
  kernels.matrix_vector = Int8Rows::product;
  if (activations != Activations::exact) use_int8_panels_words(kernels);
  return kernels;
}

}  // namespace gptoss
