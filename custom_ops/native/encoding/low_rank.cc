// How rows are walked through: a tile after the other, in the order of memory, so that each line of
// the cache is read and written once.
#include "encoding/low_rank.h"

#include <algorithm>
#include <cstring>

#include "encoding/mxfp4_quantize.h"
#include "machine/aligned_bytes.h"

namespace gptoss {
namespace {

constexpr int64_t kRegister = 8;  // columns, of every level at most

// Copies the columns of the right matrix that a tile needs, with zeros beside them.
void fill_panel(const LowRankProduct& product, int64_t width, int64_t index, float* panel) {
  const int64_t first = index * kTileColumns;
  const int64_t columns = std::min(kTileColumns, width - first);
  for (int64_t k = 0; k < product.rank; ++k) {
    float* row = panel + k * kTileColumns;
    std::copy_n(product.right + k * width + first, columns, row);
    std::fill(row + columns, row + kTileColumns, 0.0f);
  }
}

void widen_tile(const BaseRows& base, const LowRankKernel& kernel, int64_t row, int64_t rows,
                int64_t first, int64_t columns, float* tile) {
  for (int64_t i = 0; i < rows; ++i, tile += kTileColumns) {
    const int64_t at = (row + i) * base.width + first;
    if (base.scales == nullptr) {
      kernel.widen(base.numbers + 2 * at, columns, tile);
    } else {
      const int64_t block = at / kBlockNumbers;
      kernel.decode(base.numbers + block * kBlockCodes, base.scales + block,
                    columns / kBlockNumbers, tile);
    }
  }
}

}  // namespace

void add_low_rank(const BaseRows& base, const LowRankProduct& product, const LowRankKernel& kernel,
                  uint16_t* sums) {
  const int64_t panel = product.rank * kTileColumns;
  const int64_t panels = (base.width + kTileColumns - 1) / kTileColumns;
  const AlignedBytes bytes(panels * panel * sizeof(float));
  float* right = reinterpret_cast<float*>(bytes.data());
  for (int64_t i = 0; i < panels; ++i) fill_panel(product, base.width, i, right + i * panel);
  alignas(64) float tile[kTileRows * kTileColumns] = {};
  alignas(64) uint16_t narrow[kTileRows * kTileColumns];
  for (int64_t row = 0; row < base.rows; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, base.rows - row);
    const float* left = product.left + row * product.rank;
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t first = i * kTileColumns;
      const int64_t columns = std::min(kTileColumns, base.width - first);
      widen_tile(base, kernel, row, rows, first, columns, tile);
      uint16_t* to = sums + row * base.width + first;
      const bool whole = columns % kRegister == 0;
      kernel.add(tile, left, right + i * panel, product.rank, product.scale, rows, columns,
                 whole ? to : narrow, whole ? base.width : kTileColumns);
      for (int64_t j = 0; j < rows && !whole; ++j)
        std::memcpy(to + j * base.width, narrow + j * kTileColumns, columns * sizeof *to);
    }
  }
}

LowRankKernel low_rank_of(CpuLevel level) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx2) return low_rank_avx2();
#endif
  (void)level;
  return low_rank_scalar();
}

}  // namespace gptoss
