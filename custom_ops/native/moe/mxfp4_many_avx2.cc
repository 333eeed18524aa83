// MXFP4 times many tokens with AVX2, in integers: a pair of products at a time, of bytes
// (VPMADDUBSW) or of words (VPMADDWD). With the additions that take them up, they do three times,
// and one and a half times, what float32 FMA does.
//
// Lane r of a register has four bytes or two words of row r. Mode int8 has bytes and bf16 words of
// 15 bits; exact has both, the low byte of 23 bits and the word above it, which meets levels times
// 256. So 32 products of a row and token become one int32, exact, and then one float.
#include <immintrin.h>

#include "machine/digits_avx2.h"
#include "moe/mxfp4_many.h"
#include "moe/mxfp4_many_dots_avx2.h"

namespace gptoss {
namespace {

// Rows of a piece that lie across the lanes.
struct RowLanes {
  static constexpr size_t kLanes = gptoss::kLanes;
  struct Scales {
    const uint8_t* first;
    size_t stride;
  };
  static Scales scales(const uint8_t* first, size_t stride, size_t) { return {first, stride}; }
};

// The scale factors of a block of eight rows (scale_factor).
__m256 factors(const RowLanes::Scales& scales, size_t block) {
  uint64_t bytes = 0;
  for (size_t r = kLanes; r-- > 0;) bytes = bytes << 8 | scales.first[r * scales.stride + block];
  const Ints bits =
      _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes))), 23);
  const Ints zero = _mm256_cmpeq_epi32(bits, _mm256_setzero_si256());
  const Ints nan = _mm256_cmpeq_epi32(bits, _mm256_set1_epi32(0x7f800000));
  const Ints edges = _mm256_or_si256(_mm256_and_si256(zero, _mm256_set1_epi32(0x00400000)),
                                     _mm256_and_si256(nan, _mm256_set1_epi32(0x00400000)));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, edges));
}

// Sixteen bytes of eight rows as offset levels: lane r of register i has those of the low nibbles
// of bytes 4i … 4i + 3 of row r, and of register 4 + i those of the high ones.
void offset_levels(const uint8_t* bytes, size_t stride, Ints (&levels)[kByteSteps]) {
  const auto row = [&](size_t r) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + r * stride));
  };
  const auto two = [&](size_t r) { return _mm256_set_m128i(row(r + 4), row(r)); };
  const Ints a = two(0), b = two(1), c = two(2), d = two(3);
  const Ints ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
  const Ints cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
  const Ints dwords[4] = {
      _mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
      _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)};
  const Ints table = _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kOffsetLevels.bytes)));
  const Ints low = _mm256_set1_epi8(15);
  for (size_t i = 0; i < 4; ++i) {
    levels[i] = _mm256_shuffle_epi8(table, _mm256_and_si256(dwords[i], low));
    levels[4 + i] =
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(dwords[i], 4), low));
  }
}

// Asks for what lies at `place`, where it is read soon.
template <class T>
void ask_soon(const T* place) {
  const auto* bytes = reinterpret_cast<const std::byte*>(place);
  for (size_t i = 0; i < sizeof(T); i += 64) _mm_prefetch(bytes + i, _MM_HINT_T0);
}

template <class Dots>
struct PairsTile {
  static constexpr size_t kTokens = kTileTokens, kRows = kVectors * kLanes;
  static constexpr size_t kBlocks = Dots::kBlocks;
  static constexpr bool kDecodesAhead = false;

  struct TokenBlock {
    typename Dots::Values values;
    float scales[kTokens];  // half of each: levels are doubled
  };

  struct alignas(64) PanelBlock {
    typename Dots::Weights weights;
    float scales[kVectors][kLanes];
  };

  using Piece = PieceOfRows<RowLanes, kVectors>;

  static void pack(const float* x, size_t token, TokenBlock& block) {
    const auto [integers, scale] = to_integers<Dots::kRounded>(x, Dots::kMost);
    Dots::pack(integers, token, block.values);
    block.scales[token] = 0.5f * scale;
  }

  static void decode(const Piece& piece, size_t block, PanelBlock& decoded) {
    piece.ask_ahead(block);
    for (size_t v = 0; v < kVectors; ++v) {
      Ints levels[kByteSteps];
      offset_levels(piece.bytes[v] + block * kBlockBytes, piece.stride, levels);
      Dots::decode(levels, v, decoded.weights);
      _mm256_store_ps(decoded.scales[v], factors(piece.scales[v], block));
    }
  }

  template <size_t tokens>
  static void multiply(const Piece&, const Sums<PairsTile>& of) {
    // Floats stay in memory: registers have the integers.
    alignas(32) float sums[tokens][kVectors][kLanes];
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < kVectors; ++v) {
        const float* place = of.out + t * of.stride + v * kLanes;
        _mm256_store_ps(sums[t][v], of.add ? _mm256_loadu_ps(place) : _mm256_setzero_ps());
      }
    }
    for (size_t block = 0; block < of.blocks; ++block) {
      const PanelBlock& panel = of.panel[block];
      ask_soon(of.next + block);
      Parts<tokens> parts;
      Dots::template dot<tokens>(panel.weights, of.x[block].values, parts);
#pragma GCC unroll 6
      for (size_t t = 0; t < tokens; ++t) {
        const __m256 scale = _mm256_broadcast_ss(&of.x[block].scales[t]);
#pragma GCC unroll 2
        for (size_t v = 0; v < kVectors; ++v) {
          const __m256 partial = _mm256_mul_ps(_mm256_cvtepi32_ps(parts[t][v]), scale);
          const __m256 factors = _mm256_load_ps(panel.scales[v]);
          _mm256_store_ps(sums[t][v],
                          _mm256_fmadd_ps(partial, factors, _mm256_load_ps(sums[t][v])));
        }
      }
    }
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t v = 0; v < kVectors; ++v)
        _mm256_storeu_ps(of.out + t * of.stride + v * kLanes, _mm256_load_ps(sums[t][v]));
    }
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_many_avx2(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return Mxfp4Many<PairsTile<Bf16Dots>>::kKernel;
    case Activations::int8:
      return Mxfp4Many<PairsTile<Int8Dots>>::kKernel;
    default:
      return Mxfp4Many<PairsTile<ExactDots>>::kKernel;
  }
}

}  // namespace gptoss
