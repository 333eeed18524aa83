// MXFP4 times many tokens with AMX: 16 × 16 products of bfloat16 at a time, for prefill.
//
// A weight, its scale included, is exact in bfloat16. An activation is one bfloat16, or in mode
// exact three, each the nearest to what the ones before left: their sum is the float32 itself.
// Weights are the left operand, whose tiles are rows as they come, so that only tokens need the
// interleaving of the right operand, once. Sums are float32.
#include "machine/amx_tiles.h"
#include "machine/vectors_avx512.h"
#include "moe/mxfp4.h"

namespace gptoss {
namespace {

constexpr size_t kTile = 16;  // rows of weights, and tokens, of a tile
constexpr size_t kTileBytes =
    1024;  // 16 rows of 64 bytes: a block's weights, or pairs of a block for 16 tokens
constexpr size_t kPanelRows = 2 * kTile;
constexpr size_t kPanelBlocks = 16;  // 32 kB of decoded weights, for the first-level cache
// Panels of rows that meet a piece of the tokens one after the other, while it lies in the
// second-level cache.
constexpr size_t kGroupPanels = 8;

// Products with scales outside could be subnormal or infinite, which AMX does not compute as
// float32 does.
constexpr uint8_t kLowestScale = 32, kHighestScale = 222;

size_t tiles_of(size_t tokens) { return (tokens + kTile - 1) / kTile; }

// By tile of 16 tokens, block and term: the block's 16 pairs of values, each for 16 tokens. The 16
// values that meet low nibbles come before the 16 that meet high ones.
template <size_t terms>
size_t packed_bytes(size_t tokens, size_t width) {
  return tiles_of(tokens) * (width / kBlock) * terms * kTileBytes;
}

template <size_t terms>
constexpr size_t tile_stride(size_t blocks) {
  return blocks * terms * kTileBytes;
}

// The upper halves of floats rounded to the nearest bfloat16.
__m512i round_to_bf16(__m512 x) { return _mm512_castps_si512(Floats16::round_to_bf16(x)); }

template <size_t terms>
void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
          std::byte* packed) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512i pairs =
      _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 6);
  std::byte* column = packed + token / kTile * tile_stride<terms>(width / kBlock) +
                      token % kTile * sizeof(uint32_t);
  for (size_t i = 0; i < count; i += kBlock) {
    const __m512i a = _mm512_loadu_si512(x + i), b = _mm512_loadu_si512(x + i + kTile);
    __m512 low = _mm512_castsi512_ps(_mm512_permutex2var_epi32(a, even, b));
    __m512 high = _mm512_castsi512_ps(_mm512_permutex2var_epi32(a, odd, b));
    for (size_t term = 0; term < terms; ++term) {
      const __m512i low_bits = round_to_bf16(low), high_bits = round_to_bf16(high);
      low = _mm512_sub_ps(low, _mm512_castsi512_ps(low_bits));
      high = _mm512_sub_ps(high, _mm512_castsi512_ps(high_bits));
      const __m256i low_half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(low_bits, 16));
      const __m256i high_half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(high_bits, 16));
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low_half), high_half, 1);
      std::byte* tile = column + ((first + i) / kBlock * terms + term) * kTileBytes;
      _mm512_i32scatter_epi32(tile, pairs, both, 1);
    }
  }
}

// What `multiply` keeps in the first-level cache: a panel's decoded weights, each tile in one
// piece.
struct alignas(kLineBytes) Panel {
  uint16_t weights[kPanelBlocks][kPanelRows][kBlock];
};

// The sums of a panel and a tile of tokens.
struct alignas(kLineBytes) Sums {
  float halves[2][kTile][kTile];  // of the panel; by row and token
};

size_t scratch_bytes(size_t tokens, size_t) {
  return sizeof(Panel) + kGroupPanels * tiles_of(tokens) * sizeof(Sums);
}

// Bits of the levels in bfloat16, twice, since the permutation looks at five bits of a nibble's
// lane.
struct LevelBits {
  uint16_t lanes[32];
};

constexpr LevelBits level_bits() {
  LevelBits bits{};
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned nibble = lane % 16;
    float mantissa = kLevels[nibble % 8];  // without the sign
    if (mantissa != 0) {
      unsigned exponent = 127;
      for (; mantissa >= 2; mantissa /= 2) ++exponent;
      for (; mantissa < 1; mantissa *= 2) --exponent;
      bits.lanes[lane] =
          static_cast<uint16_t>(exponent << 7 | static_cast<unsigned>((mantissa - 1) * 128));
    }
    if (nibble >= 8) bits.lanes[lane] = static_cast<uint16_t>(bits.lanes[lane] | 0x8000u);
  }
  return bits;
}

constexpr LevelBits kLevelBits = level_bits();
static_assert(kLevelBits.lanes[1] == 0x3f00 && kLevelBits.lanes[31] == 0xc0c0, "½ and −6");
constexpr __mmask32 kNotZero = 0xfefefefe;

bool is_zero(const uint8_t* bytes) {
  const __m128i magnitudes = _mm_set1_epi8(0x77);
  return _mm_testz_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), magnitudes);
}

// Decodes one block to 32 bfloat16: a scale adds to the exponent of every level but zero.
__m512i decode(const uint8_t* bytes, uint8_t scale) {
  const __m512i table = _mm512_loadu_si512(kLevelBits.lanes);
  const auto exponent = static_cast<short>((scale - 127) * 128);
  const __m512i scaled = _mm512_mask_add_epi16(table, kNotZero, table, _mm512_set1_epi16(exponent));
  const __m256i twice =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m512i halves = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return _mm512_permutexvar_epi16(_mm512_srlv_epi16(_mm512_cvtepu8_epi16(twice), halves), scaled);
}

// Decodes blocks [begin, end) of a panel's rows. Blocks with an unusual scale count as zero; the
// result has a bit for each row that has one and is not zero anyway.
uint32_t decode_panel(const Mxfp4Rows& rows, size_t first, size_t begin, size_t end, Panel& panel) {
  const size_t blocks = rows.width / kBlock;
  uint32_t unusual = 0;
  for (size_t r = 0; r < kPanelRows; ++r) {
    const uint8_t* scales = rows.scales + (first + r) * blocks;
    const uint8_t* bytes = rows.blocks + (first + r) * blocks * kBlockBytes;
    // No hardware prefetcher follows pieces of rows: ask for the next panel's piece while this one
    // is in use.
    const uint8_t* ahead = bytes + (kPanelRows * blocks + begin) * kBlockBytes;
    for (size_t i = 0; i < (end - begin) * kBlockBytes; i += kLineBytes)
      _mm_prefetch(ahead + i, _MM_HINT_T1);
    for (size_t block = begin; block < end; ++block) {
      const uint8_t scale = scales[block];
      __m512i weights = _mm512_setzero_si512();
      if (scale >= kLowestScale && scale <= kHighestScale) {
        weights = decode(bytes + block * kBlockBytes, scale);
      } else if (scale == 255 || !is_zero(bytes + block * kBlockBytes)) {
        unusual |= uint32_t{1} << r;
      }
      _mm512_store_si512(panel.weights[block - begin][r], weights);
    }
  }
  return unusual;
}

// Adds the products of a panel's blocks to the sums of two tiles of tokens (tiles 0 to 3), or of
// one.
template <size_t terms, bool two>
void multiply_tiles(const Panel& panel, size_t blocks, const std::byte* tokens, size_t stride,
                    Sums* sums, bool begin) {
  if (begin) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0].halves[0], kLineBytes);
    _tile_loadd(1, sums[0].halves[1], kLineBytes);
    if constexpr (two) _tile_loadd(2, sums[1].halves[0], kLineBytes);
    if constexpr (two) _tile_loadd(3, sums[1].halves[1], kLineBytes);
  }
  for (size_t block = 0; block < blocks; ++block) {
    _tile_loadd(4, panel.weights[block][0], kLineBytes);
    _tile_loadd(5, panel.weights[block][kTile], kLineBytes);
    for (size_t term = 0; term < terms; ++term) {
      const std::byte* tile = tokens + (block * terms + term) * kTileBytes;
      _tile_loadd(6, tile, kLineBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (two) {
        _tile_loadd(7, tile + stride, kLineBytes);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, sums[0].halves[0], kLineBytes);
  _tile_stored(1, sums[0].halves[1], kLineBytes);
  if constexpr (two) _tile_stored(2, sums[1].halves[0], kLineBytes);
  if constexpr (two) _tile_stored(3, sums[1].halves[1], kLineBytes);
}

// One row against the packed tokens without AMX, for scales that bfloat16 does not hold.
template <size_t terms>
void multiply_unusual_row(const uint8_t* bytes, const uint8_t* scales, size_t blocks,
                          const std::byte* packed, size_t tokens, float* out, size_t stride) {
  for (size_t t = 0; t < tokens; ++t) {
    const std::byte* column =
        packed + t / kTile * tile_stride<terms>(blocks) + t % kTile * sizeof(uint32_t);
    float sum = 0;
    for (size_t block = 0; block < blocks; ++block) {
      float partial = 0;
      for (size_t i = 0; i < kBlockBytes; ++i) {
        const uint8_t byte = bytes[block * kBlockBytes + i];
        for (size_t term = 0; term < terms; ++term) {
          const std::byte* value =
              column + (block * terms + term) * kTileBytes + i / 2 * kLineBytes + i % 2 * 2;
          uint16_t bits[2];  // of the values that meet the low and the high nibble
          std::memcpy(&bits[0], value, sizeof bits[0]);
          std::memcpy(&bits[1], value + kTileBytes / 2, sizeof bits[1]);
          for (size_t half = 0; half < 2; ++half) {
            const uint32_t widened = uint32_t{bits[half]} << 16;
            float x;
            std::memcpy(&x, &widened, sizeof x);
            partial += kLevels[half == 0 ? byte & 15 : byte >> 4] * x;
          }
        }
      }
      sum += scale_factor(scales[block]) * partial;
    }
    out[t * stride] = sum;
  }
}

// A panel times all tokens.
template <size_t terms>
void multiply_panel(const Panel& panel, size_t blocks, const std::byte* tokens, size_t tiles,
                    size_t next, Sums* sums, bool begin) {
  size_t tile = 0;
  for (; tile + 2 <= tiles; tile += 2) {
    multiply_tiles<terms, true>(panel, blocks, tokens + tile * next, next, sums + tile, begin);
  }
  if (tile < tiles) {
    multiply_tiles<terms, false>(panel, blocks, tokens + tile * next, next, sums + tile, begin);
  }
}

void store_sums(const Sums* sums, size_t tokens, float* out, size_t stride) {
  for (size_t t = 0; t < tokens; ++t) {
    const Sums& tile = sums[t / kTile];
    for (size_t i = 0; i < kPanelRows; ++i)
      out[t * stride + i] = tile.halves[i / kTile][i % kTile][t % kTile];
  }
}

template <size_t terms>
void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* memory, float* out,
              size_t stride) {
  const size_t blocks = rows.width / kBlock, tiles = tiles_of(tokens.count),
               next = tile_stride<terms>(blocks);
  const std::byte* packed = tokens.data + tokens.first / kTile * next;
  Panel& panel = *reinterpret_cast<Panel*>(memory);
  Sums* sums = reinterpret_cast<Sums*>(memory + sizeof(Panel));
  const TileConfig config;
  _tile_loadconfig(&config);
  for (size_t group = 0; group < rows.count; group += kGroupPanels * kPanelRows) {
    const size_t left = (rows.count - group + kPanelRows - 1) / kPanelRows;
    const size_t panels = left < kGroupPanels ? left : kGroupPanels;
    uint32_t unusual[kGroupPanels] = {};
    for (size_t begin = 0; begin < blocks; begin += kPanelBlocks) {
      const size_t end = begin + kPanelBlocks < blocks ? begin + kPanelBlocks : blocks;
      for (size_t p = 0; p < panels; ++p) {
        unusual[p] |= decode_panel(rows, group + p * kPanelRows, begin, end, panel);
        settle_memory();
        multiply_panel<terms>(panel, end - begin, packed + begin * terms * kTileBytes, tiles, next,
                              sums + p * tiles, begin == 0);
        settle_memory();
      }
    }
    for (size_t p = 0; p < panels; ++p) {
      const size_t r = group + p * kPanelRows;
      store_sums(sums + p * tiles, tokens.count, out + r, stride);
      for (size_t i = 0; i < kPanelRows; ++i) {
        if (!(unusual[p] >> i & 1)) continue;
        multiply_unusual_row<terms>(rows.blocks + (r + i) * blocks * kBlockBytes,
                                    rows.scales + (r + i) * blocks, blocks, packed, tokens.count,
                                    out + r + i, stride);
      }
    }
  }
  _tile_release();
}

template <size_t terms>
constexpr Mxfp4Kernel kKernel = {kTile, packed_bytes<terms>, pack<terms>, scratch_bytes,
                                 multiply<terms>};

}  // namespace

const Mxfp4Kernel& mxfp4_amx(Activations activations) {
  return activations == Activations::exact ? kKernel<3> : kKernel<1>;
}

}  // namespace gptoss
