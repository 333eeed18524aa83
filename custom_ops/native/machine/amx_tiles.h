// What every kernel with AMX tells the processor of its eight tiles, and the compiler of the memory
// they touch.
//
// Included by files that are compiled with AMX alone: everything is in an anonymous namespace
// (CMakeLists.txt says why).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace gptoss {
namespace {

constexpr size_t kTileRows = 16;
constexpr size_t kLineBytes = 64;

// Sixteen rows of 64 bytes in every tile, until told otherwise.
struct alignas(kLineBytes) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The compiler does not know that a tile load reads memory, nor that a store writes it.
void settle_memory() { __asm__ volatile("" ::: "memory"); }

}  // namespace
}  // namespace gptoss
