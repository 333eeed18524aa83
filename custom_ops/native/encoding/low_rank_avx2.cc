// Tiles of up to four rows by up to 24 columns, whose products stay in registers.
#include "encoding/low_rank.h"
#include "encoding/mxfp4_decode.h"
#include "machine/digits_avx2.h"
#include "machine/vectors_avx2.h"

namespace gptoss {
namespace {

constexpr int64_t kLanes = Floats8::kLanes;

void widen(const unsigned char* numbers, int64_t count, float* wide) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    Floats8::store(wide + i, Floats8::from_bfloat16(numbers + 2 * i));
  low_rank_scalar().widen(numbers + 2 * i, count - i, wide + i);
}

// The bits of the nearest bfloat16, ties to even; NaN stays NaN.
__m128i bfloat16_of(__m256 x) {
  const __m256 quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x00400000)));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 kept = _mm256_blendv_ps(round_to_bf16(x), quiet, nan);
  const __m256i upper = _mm256_srli_epi32(_mm256_castps_si256(kept), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}

template <int rows, int vectors>
void add_tile(const float* numbers, const float* left, const float* panel, int64_t rank,
              float scale, uint16_t* sums, int64_t pitch) {
  __m256 products[rows][vectors];
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) products[i][v] = Floats8::zero();
  for (int64_t k = 0; k < rank; ++k, panel += kTileColumns) {
    __m256 right[vectors];
    for (int v = 0; v < vectors; ++v) right[v] = Floats8::load(panel + v * kLanes);
    for (int i = 0; i < rows; ++i) {
      const __m256 factor = Floats8::broadcast(left[i * rank + k]);
      for (int v = 0; v < vectors; ++v)
        products[i][v] = Floats8::add_product(products[i][v], factor, right[v]);
    }
  }
  const __m256 factor = Floats8::broadcast(scale);
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) {
      const __m256 number = Floats8::load(numbers + i * kTileColumns + v * kLanes);
      const __m256 sum = Floats8::add_product(number, factor, products[i][v]);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + i * pitch + v * kLanes),
                       bfloat16_of(sum));
    }
  }
}

template <int rows>
void add_rows(const float* numbers, const float* left, const float* panel, int64_t rank,
              float scale, int64_t columns, uint16_t* sums, int64_t pitch) {
  constexpr int kVectors = 3;
  int64_t at = 0;
  for (; at + kVectors * kLanes <= columns; at += kVectors * kLanes)
    add_tile<rows, kVectors>(numbers + at, left, panel + at, rank, scale, sums + at, pitch);
  for (; at < columns; at += kLanes)
    add_tile<rows, 1>(numbers + at, left, panel + at, rank, scale, sums + at, pitch);
}

void add(const float* numbers, const float* left, const float* panel, int64_t rank, float scale,
         int64_t rows, int64_t columns, uint16_t* sums, int64_t pitch) {
  if (rows == kTileRows)
    return add_rows<kTileRows>(numbers, left, panel, rank, scale, columns, sums, pitch);
  for (int64_t row = 0; row < rows; ++row)
    add_rows<1>(numbers + row * kTileColumns, left + row * rank, panel, rank, scale, columns,
                sums + row * pitch, pitch);
}

}  // namespace

LowRankKernel low_rank_avx2() { return {widen, decode_avx2, add}; }

}  // namespace gptoss
