// The measuring loops with AMX: six tiles of 16 × 16 sums, each a chain of its own.
#include "machine/amx_tiles.h"
#include "machine/machine_loops.h"

namespace gptoss {
namespace {

constexpr uint64_t kTiles = 6;
constexpr uint64_t kTileSteps = 200'000;
constexpr uint64_t kTileSums = 16 * 16;

void zero_tiles() {
  const TileConfig config;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

uint64_t first_sum() {
  alignas(64) uint64_t sums[16][8];
  _tile_stored(0, sums, 64);
  settle_memory();
  _tile_release();
  return sums[0][0];
}

uint64_t run_bf16(uint64_t steps) noexcept {
  zero_tiles();
  for (uint64_t done = 0; done < steps; ++done) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
  return first_sum();
}

uint64_t run_int8(uint64_t steps) noexcept {
  zero_tiles();
  for (uint64_t done = 0; done < steps; ++done) {
    _tile_dpbssd(0, 6, 7);
    _tile_dpbssd(1, 6, 7);
    _tile_dpbssd(2, 6, 7);
    _tile_dpbssd(3, 6, 7);
    _tile_dpbssd(4, 6, 7);
    _tile_dpbssd(5, 6, 7);
  }
  return first_sum();
}

}  // namespace

ComputeLoop compute_bf16_amx() { return {run_bf16, 2 * 32 * kTileSums * kTiles, kTileSteps}; }

ComputeLoop compute_int8_amx() { return {run_int8, 2 * 64 * kTileSums * kTiles, kTileSteps}; }

}  // namespace gptoss
