// The blocked product of Linear on bfloat16 weights with AMX: 16 × 16 sums of 32 products at a
// time.
//
// Weights are the left operand and need no packing: a tile is loaded from where they lie. Tokens
// are the right one: pairs of bfloat16 values, or in mode exact three such terms, each the nearest
// to what the ones before left. Their sum is the float32 itself, and a product of two bfloat16 is
// exact in float32: only sums are rounded.
#include "linear/linear_tiles.h"

namespace gptoss {
namespace {

// 16 rows of weights: where they lie, or where they would run over an edge copied with zeros beyond
// it.
class WeightTile {
 public:
  WeightTile(const LinearCall& call, size_t m, size_t end)
      : start_(call.weight + m * call.row_bytes),
        row_bytes_(call.row_bytes),
        rows_(m < end ? least(kTileRows, end - m) : 0) {}

  // Columns of one line of 64 bytes; `stride` becomes the distance between their rows.
  const unsigned char* line(size_t lane, size_t& stride) {
    const size_t offset = lane * sizeof(float);
    const size_t bytes = least(kLineBytes, row_bytes_ - offset);
    if (rows_ == kTileRows && bytes == kLineBytes) {
      stride = row_bytes_;
      return start_ + offset;
    }
    for (size_t row = 0; row < kTileRows; ++row) {
      __builtin_memset(copy_[row], 0, kLineBytes);
      if (row < rows_) __builtin_memcpy(copy_[row], start_ + row * row_bytes_ + offset, bytes);
    }
    settle_memory();
    stride = kLineBytes;
    return copy_[0];
  }

 private:
  const unsigned char* start_;
  size_t row_bytes_, rows_;
  alignas(kLineBytes) unsigned char copy_[kTileRows][kLineBytes];
};

// 32 rows from m on times the tokens of one tile, or of two.
template <size_t kTerms, bool two>
void multiply(const LinearCall& call, const TokenTiles& tiles, size_t m, size_t end, size_t tile) {
  const size_t term_lanes = call.lanes / kTerms;
  const size_t token_stride = tiles.width * sizeof(float);
  const float* tokens = tiles.packed + tile * call.lanes * tiles.width;
  const float* more_tokens = tokens + call.lanes * tiles.width;
  WeightTile low(call, m, end), high(call, m + kTileRows, end);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t lane = 0; lane < term_lanes; lane += kTileRows) {
    size_t low_stride, high_stride;
    const unsigned char* low_line = low.line(lane, low_stride);
    const unsigned char* high_line = high.line(lane, high_stride);
    _tile_loadd(4, low_line, low_stride);
    _tile_loadd(5, high_line, high_stride);
    for (size_t term = 0; term < kTerms; ++term) {
      const size_t offset = (term * term_lanes + lane) * tiles.width;
      _tile_loadd(6, tokens + offset, token_stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (two) {
        _tile_loadd(7, more_tokens + offset, token_stride);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  alignas(kLineBytes) float sums[4][kTileRows][kTileRows];
  _tile_stored(0, sums[0], kLineBytes);
  _tile_stored(1, sums[1], kLineBytes);
  _tile_stored(2, sums[2], kLineBytes);
  _tile_stored(3, sums[3], kLineBytes);
  settle_memory();
  for (size_t i = 0; i < (two ? 4 : 2); ++i) {
    const size_t token = (tile + i / 2) * tiles.width;
    store(call, sums[i], m + i % 2 * kTileRows, end, token,
          least(tiles.width, call.tokens - token));
  }
}

template <size_t kTerms>
void blocked_product(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                     float*) noexcept {
  configure(tiles.width);
  for (size_t tile = 0; tile < tiles.count; tile += 2) {
    for (size_t m = begin; m < end; m += 2 * kTileRows) {
      if (tile + 1 < tiles.count) {
        multiply<kTerms, true>(call, tiles, m, end, tile);
      } else {
        multiply<kTerms, false>(call, tiles, m, end, tile);
      }
    }
  }
  _tile_release();
}

}  // namespace

LinearKernels linear_amx(bool rounded) {
  LinearKernels kernels = rounded ? linear_avx512_bf16() : linear_avx512(WeightType::bfloat16);
  kernels.blocked_product = rounded ? blocked_product<1> : blocked_product<3>;
  kernels.blocked_format =
      rounded ? TokenFormat::tile_pairs : TokenFormat::tile_pairs_of_three_terms;
  kernels.tile_width = kTileRows;
  return kernels;
}

}  // namespace gptoss
