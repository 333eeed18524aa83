// A piece of a panel (mxfp4_many.h) whose lanes are 16 rows, for kernels with AVX-512.
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_transpose.h.
#pragma once

#include "machine/digits.h"
#include "moe/mxfp4_many.h"
#include "moe/mxfp4_transpose.h"

namespace gptoss {
namespace {

constexpr size_t kPanelVectors = 2, kPanelRows = kPanelVectors * kLanes;

struct RowLanes {
  using Scales = Across;
  static constexpr size_t kLanes = gptoss::kLanes;
  static Across scales(const uint8_t* scales, size_t stride, size_t count) {
    return scales_across(scales, stride, count);
  }
};

// Asks for what lies at `place`, where it is read soon.
template <class T>
void ask_soon(const T* place) {
  const auto* bytes = reinterpret_cast<const std::byte*>(place);
  for (size_t i = 0; i < sizeof(T); i += 64) _mm_prefetch(bytes + i, _MM_HINT_T0);
}

// A block of the panel's rows, across the lanes.
using Nibbles = Across[kPanelVectors];

// `lowest` and `highest`: scale bytes that the fast way knows.
template <uint8_t lowest, uint8_t highest>
struct PanelPiece : PieceOfRows<RowLanes, kPanelVectors> {
  PanelPiece(const Mxfp4Rows& rows, size_t row, size_t begin, size_t end)
      : PieceOfRows<RowLanes, kPanelVectors>(rows, row, begin, end), unusual(has_unusual()) {
    if (unusual) forgive_zeros(end - begin);
  }

  // What decoding a block begins with.
  void load(size_t block, Nibbles& nibbles) const {
    this->ask_ahead(block);
    const uint8_t* soon = bytes[0] + block % 4 * (kPanelRows / 4) * stride + (block / 4 + 1) * 64;
    for (size_t row = 0; row < kPanelRows / 4; ++row)
      _mm_prefetch(soon + row * stride, _MM_HINT_T0);
    for (size_t v = 0; v < kPanelVectors; ++v)
      nibbles[v] = across(bytes[v] + block * kBlockBytes, stride);
  }

  bool unusual;  // has a scale that the fast way does not know

 private:
  static bool is_usual(uint8_t scale) { return scale >= lowest && scale <= highest; }

  bool has_unusual() const {
    __mmask64 any = 0;
    for (const Across& some : scales) {
      for (const __m512i& bytes : some.dwords) {
        const __m512i above = _mm512_sub_epi8(bytes, _mm512_set1_epi8(lowest));
        any |= _mm512_cmpgt_epu8_mask(above, _mm512_set1_epi8(static_cast<char>(highest - lowest)));
      }
    }
    return any != 0;
  }

  // The scale of zeros is of no account, unless it is NaN.
  void forgive_zeros(size_t blocks) {
    for (size_t v = 0; v < kPanelVectors; ++v) {
      alignas(64) uint8_t across[sizeof(Across)];
      std::memcpy(across, &scales[v], sizeof across);
      for (size_t row = 0; row < kLanes; ++row) {
        for (size_t block = 0; block < blocks; ++block) {
          uint8_t& scale = across[block / 4 * 64 + row * 4 + block % 4];
          if (is_usual(scale) || scale == 255) continue;
          if (is_zero(bytes[v] + row * stride + block * kBlockBytes)) scale = 127;
        }
      }
      std::memcpy(&scales[v], across, sizeof across);
    }
    unusual = has_unusual();
  }

  static bool is_zero(const uint8_t* block) {
    const __m128i magnitudes = _mm_set1_epi8(0x77);
    return _mm_testz_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block)), magnitudes);
  }
};

}  // namespace
}  // namespace gptoss
