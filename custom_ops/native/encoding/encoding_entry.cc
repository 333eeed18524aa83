// The exported functions of encoding and decoding; Python calls them through ctypes.
#include <new>

#include "abi/error.h"
#include "abi/gptoss_ops.h"
#include "encoding/low_rank.h"
#include "encoding/mxfp4_decode.h"
#include "encoding/mxfp4_quantize.h"
#include "machine/cpu_features.h"

namespace {

gptoss::NumberMatrix matrix_of(const void* numbers, int element, int64_t rows, int64_t groups,
                               int columns) {
  return {static_cast<const unsigned char*>(numbers), static_cast<gptoss::Element>(element), rows,
          groups, columns != 0};
}

gptoss::Decode decode_of(gptoss::CpuLevel level) {
#if defined(__x86_64__)
  if (level >= gptoss::CpuLevel::avx2) return gptoss::decode_avx2;
#endif
  (void)level;
  return gptoss::decode_scalar;
}

}  // namespace

int gptoss_quantize_mxfp4(const void* numbers, int element, int64_t rows, int64_t groups,
                          int columns, int64_t pitch, uint8_t* codes, uint8_t* scales,
                          double* lost, double* total) {
  try {
    const gptoss::Quantizer quantizer = gptoss::quantizer_of(gptoss::cpu_level());
    gptoss::SquareSums sums{};
    gptoss::quantize_matrix(matrix_of(numbers, element, rows, groups, columns), pitch, codes,
                            scales, quantizer, sums);
    *lost = *total = 0;
    for (const double sum : sums.lost) *lost += sum;
    for (const double sum : sums.total) *total += sum;
    return 0;
  } catch (const gptoss::Error&) {  // GPTOSS_CPU_LEVEL; gptoss_ops_error says what
    return -2;
  }
}

int gptoss_is_mxfp4(const void* numbers, int element, int64_t rows, int64_t groups, int columns) {
  try {
    return gptoss::is_exact_matrix(matrix_of(numbers, element, rows, groups, columns),
                                   gptoss::quantizer_of(gptoss::cpu_level()))
               ? 1
               : 0;
  } catch (const gptoss::Error&) {
    return -2;
  }
}

int gptoss_decode_mxfp4(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        float* numbers) {
  try {
    decode_of(gptoss::cpu_level())(codes, scales, blocks, numbers);
    return 0;
  } catch (const gptoss::Error&) {
    return -2;
  }
}

int gptoss_add_low_rank(const void* numbers, const uint8_t* scales, int64_t rows, int64_t width,
                        const float* left, const float* right, int64_t rank, float scale,
                        uint16_t* sums) {
  try {
    gptoss::add_low_rank({static_cast<const unsigned char*>(numbers), scales, rows, width},
                         {left, right, rank, scale}, gptoss::low_rank_of(gptoss::cpu_level()),
                         sums);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  } catch (const gptoss::Error&) {
    return -2;
  }
}
