// How a matrix is walked through: so that each line of the cache is read and written once.
#include "encoding/mxfp4_quantize.h"

#include <algorithm>

namespace gptoss {
namespace {

constexpr int64_t kLine = 64;                     // bytes of a cache line
constexpr int64_t kTall = kLine / kBlockCodes;  // blocks of a row whose codes share one

// Columns whose numbers share a line, of some neighbouring blocks: a part of a matrix by columns
// that stays in the cache.
template <class Visit>
void for_each_tile(const NumberMatrix& matrix, Visit visit) {
  const int64_t wide = kLine / bytes_of(matrix.element);
  for (int64_t group = 0; group < matrix.groups; group += kTall)
    for (int64_t row = 0; row < matrix.rows; row += wide)
      if (!visit(group, std::min(group + kTall, matrix.groups), row,
                 std::min(wide, matrix.rows - row)))
        return;
}

NumberBlocks blocks_at(const NumberMatrix& matrix, int64_t group, int64_t row, int64_t count) {
  const int64_t size = bytes_of(matrix.element);
  const int64_t next_number = matrix.rows * size;
  const unsigned char* first =
      matrix.numbers + group * kBlockNumbers * next_number + row * size;
  return {first, matrix.element, count, next_number, size};
}

NumberBlocks all_blocks(const NumberMatrix& matrix) {
  const int64_t size = bytes_of(matrix.element);
  return {matrix.numbers, matrix.element, matrix.rows * matrix.groups, size, kBlockNumbers * size};
}

// Asks for the tile to the right: its lines lie too far apart for the processor to foresee.
void ask_ahead(const NumberBlocks& blocks) {
  for (int i = 0; i < kBlockNumbers; ++i)
    __builtin_prefetch(blocks.numbers + i * blocks.next_number + kLine);
}

}  // namespace

void quantize_matrix(const NumberMatrix& matrix, int64_t pitch, unsigned char* codes,
                     unsigned char* scales, const Quantizer& quantizer, SquareSums& sums) {
  if (!matrix.columns) {
    quantizer.quantize(all_blocks(matrix), {codes, scales, kBlockCodes, 1}, sums);
    return;
  }
  for_each_tile(matrix, [&](int64_t group, int64_t end, int64_t row, int64_t count) {
    for (; group < end; ++group) {
      const NumberBlocks blocks = blocks_at(matrix, group, row, count);
      const int64_t block = row * pitch + group;
      ask_ahead(blocks);
      quantizer.quantize(
          blocks, {codes + block * kBlockCodes, scales + block, pitch * kBlockCodes, pitch}, sums);
    }
    return true;
  });
}

bool is_exact_matrix(const NumberMatrix& matrix, const Quantizer& quantizer) {
  if (!matrix.columns) return quantizer.is_exact(all_blocks(matrix));
  bool exact = true;
  for_each_tile(matrix, [&](int64_t group, int64_t end, int64_t row, int64_t count) {
    for (; exact && group < end; ++group)
      exact = quantizer.is_exact(blocks_at(matrix, group, row, count));
    return exact;
  });
  return exact;
}

Quantizer quantizer_of(CpuLevel level) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx2) return quantizer_avx2();
#endif
  (void)level;
  return quantizer_scalar();
}

}  // namespace gptoss
