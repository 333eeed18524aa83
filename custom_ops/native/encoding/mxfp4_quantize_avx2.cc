// Eight blocks side by side, one a lane: sums over a block and scales of it are then operations on
// whole vectors, in the order of the scalar version.
//
// Compiled without fused multiply-add, whose sums would be others.
#include <immintrin.h>

#include "encoding/eight_blocks_avx2.h"

namespace gptoss {
namespace {

__m256i bits_of(__m256 x) { return _mm256_castps_si256(x); }
__m256 float_of(__m256i bits) { return _mm256_castsi256_ps(bits); }
__m256i integers(int x) { return _mm256_set1_epi32(x); }
__m256 floats(float x) { return _mm256_set1_ps(x); }
__m256 magnitude(__m256 x) { return float_of(_mm256_and_si256(bits_of(x), integers(0x7fffffff))); }
__m256 less(__m256 a, __m256 b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }

// 2^(exponent − 127), also where it is subnormal.
__m256 power(__m256i exponent) {
  const __m256i subnormal = _mm256_cmpeq_epi32(exponent, integers(0));
  return float_of(_mm256_blendv_epi8(_mm256_slli_epi32(exponent, 23), integers(1 << 22),
                                     subnormal));
}

// The nearest level times `scale`, a power of two.
__m256 nearest(__m256 value, __m256 scale) {
  const __m256 below = _mm256_and_ps(value, float_of(integers(0x7f800000)));
  const __m256 rounder = _mm256_mul_ps(_mm256_max_ps(below, scale), floats(kRounder));
  const __m256 rounded = _mm256_sub_ps(_mm256_add_ps(value, rounder), rounder);
  const __m256 most = _mm256_mul_ps(scale, floats(kLargestLevel));
  return _mm256_max_ps(_mm256_min_ps(rounded, most), _mm256_sub_ps(_mm256_setzero_ps(), most));
}

// Halves are added to halves, as the definition does it.
template <class Square>
__m256 sum_of(Square square) {
  __m256 sums[8];
  for (int i = 0; i < 8; ++i)
    sums[i] = _mm256_add_ps(_mm256_add_ps(square(i), square(i + 16)),
                            _mm256_add_ps(square(i + 8), square(i + 24)));
  for (int count = 4; count > 0; count /= 2)
    for (int i = 0; i < count; ++i) sums[i] = _mm256_add_ps(sums[i], sums[i + count]);
  return sums[0];
}

__m256 loss(const Eight& values, float scale) {
  const __m256 scales = floats(scale);
  return sum_of([&](int i) {
    const __m256 value = Floats8::load(values.numbers[i]);
    const __m256 added = _mm256_sub_ps(nearest(value, scales), value);
    return _mm256_mul_ps(added, added);
  });
}

// The scales that the specification proposes, and the numbers over them.
struct Scaled {
  Eight values;
  __m256i scales;
  __m256 largest;
  __m256i finite;

  explicit Scaled(const Eight& eight) {
    __m256i top = _mm256_setzero_si256();
    for (const auto& number : eight.numbers)
      top = _mm256_max_epi32(top, bits_of(magnitude(Floats8::load(number))));
    scales = _mm256_sub_epi32(_mm256_srli_epi32(top, 23), integers(kExponentOfFour));
    scales = _mm256_min_epi32(_mm256_max_epi32(scales, integers(0)), integers(kLargestScale));
    const __m256 factor = power(_mm256_sub_epi32(integers(2 * 127), scales));
    for (int i = 0; i < kBlockNumbers; ++i)
      Floats8::store(values.numbers[i], _mm256_mul_ps(Floats8::load(eight.numbers[i]), factor));
    largest = _mm256_mul_ps(float_of(top), factor);
    finite = _mm256_cmpgt_epi32(integers(0x7f800000), top);
  }

  __m256 decoded(int i, __m256 scale) const {
    return _mm256_mul_ps(nearest(Floats8::load(values.numbers[i]), floats(1)), scale);
  }
};

// Replaces, where it is `wanted` and loses less, the steps to the chosen scales and what they lose.
void attempt(const Scaled& scaled, __m256 wanted, int step, float scale, __m256i& steps,
             __m256& least) {
  if (_mm256_movemask_ps(wanted) == 0) return;
  const __m256 lost = loss(scaled.values, scale);
  const __m256 better = _mm256_and_ps(wanted, less(lost, least));
  steps = _mm256_blendv_epi8(steps, integers(step), bits_of(better));
  least = _mm256_blendv_ps(least, lost, better);
}

// Returns the best scales relative to those proposed, −1, 0 or 1, and what they lose.
__m256i choose(const Scaled& scaled, __m256& least) {
  const __m256 missed = _mm256_sub_ps(scaled.largest, floats(kLargestLevel / 2));
  const __m256 halved =
      _mm256_and_ps(less(_mm256_mul_ps(missed, missed), least),
                    float_of(_mm256_cmpgt_epi32(scaled.scales, integers(0))));
  const __m256 doubled =
      _mm256_and_ps(less(floats(kLargestLevel + 1), scaled.largest),
                    float_of(_mm256_cmpgt_epi32(integers(kLargestScale), scaled.scales)));
  __m256i steps = _mm256_setzero_si256();
  attempt(scaled, halved, -1, 0.5f, steps, least);
  attempt(scaled, doubled, 1, 2, steps, least);
  return steps;
}

// Doubles of eight lanes.
struct Doubles8 {
  __m256d low, high;

  explicit Doubles8(__m256 x)
      : low(_mm256_cvtps_pd(_mm256_castps256_ps128(x))),
        high(_mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))) {}
  void multiply(const Doubles8& other) {
    low = _mm256_mul_pd(low, other.low);
    high = _mm256_mul_pd(high, other.high);
  }
  void add(const Doubles8& other) {
    low = _mm256_add_pd(low, other.low);
    high = _mm256_add_pd(high, other.high);
  }
  void subtract(const Doubles8& other) {
    low = _mm256_sub_pd(low, other.low);
    high = _mm256_sub_pd(high, other.high);
  }
  void add_to(double* sums) const {
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), low));
    _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), high));
  }
};

// What rounding adds, in the lanes where float32 takes the squares for zero; 0 in the others.
Doubles8 tiny_loss(const Scaled& scaled, const Eight& eight, __m256 lanes) {
  Doubles8 sum(_mm256_setzero_ps());
  if (_mm256_movemask_ps(lanes) == 0) return sum;
  const __m256 scale = power(scaled.scales);
  for (int i = 0; i < kBlockNumbers; ++i) {
    Doubles8 added(_mm256_and_ps(lanes, scaled.decoded(i, scale)));
    added.subtract(Doubles8(_mm256_and_ps(lanes, Floats8::load(eight.numbers[i]))));
    added.multiply(added);
    sum.add(added);
  }
  return sum;
}

void add_sums(const Scaled& scaled, const Eight& eight, __m256 least, SquareSums& sums) {
  const Doubles8 scales(power(scaled.scales));
  Doubles8 lost(least);
  lost.multiply(scales);
  lost.multiply(scales);
  const __m256 none = _mm256_cmp_ps(least, _mm256_setzero_ps(), _CMP_EQ_OQ);
  lost.add(tiny_loss(scaled, eight, none));
  lost.add_to(sums.lost);
  Doubles8 total(sum_of([&](int i) {
    const __m256 value = Floats8::load(scaled.values.numbers[i]);
    return _mm256_mul_ps(value, value);
  }));
  total.multiply(scales);
  total.multiply(scales);
  total.add_to(sums.total);
}

// The codes of levels with their signs: twice the level, in floating point of its own.
__m256i codes_of(__m256 level, __m256 value) {
  const __m256i size = _mm256_srli_epi32(bits_of(magnitude(level)), 22);
  const __m256i code = _mm256_max_epi32(_mm256_sub_epi32(size, integers(252)),
                                        _mm256_min_epi32(size, integers(1)));
  const __m256i sign = _mm256_srli_epi32(bits_of(value), 31);
  return _mm256_or_si256(code, _mm256_slli_epi32(sign, 3));
}

// Word k of eight codes for each block, as block b wants it at codes[b][k].
void encode(const Scaled& scaled, __m256i steps, uint32_t (&codes)[kBlocks][4]) {
  const __m256 factor = power(_mm256_sub_epi32(integers(127), steps));
  __m256i words[4];
  for (int k = 0; k < 4; ++k) {
    words[k] = _mm256_setzero_si256();
    for (int i = 7; i >= 0; --i) {
      const __m256 value = Floats8::load(scaled.values.numbers[8 * k + i]);
      const __m256 level = nearest(_mm256_mul_ps(value, factor), floats(1));
      words[k] = _mm256_or_si256(_mm256_slli_epi32(words[k], 4), codes_of(level, value));
    }
  }
  const __m256i low01 = _mm256_unpacklo_epi32(words[0], words[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(words[2], words[3]);
  const __m256i high01 = _mm256_unpackhi_epi32(words[0], words[1]);
  const __m256i high23 = _mm256_unpackhi_epi32(words[2], words[3]);
  // Of each four blocks of a half, block b.
  const __m256i by_block[4] = {
      _mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
      _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
  for (int b = 0; b < 4; ++b) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes[b]), _mm256_castsi256_si128(by_block[b]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes[4 + b]),
                     _mm256_extracti128_si256(by_block[b], 1));
  }
}

template <Element element>
void quantize_all(const NumberBlocks& blocks, const EncodedBlocks& encoded, SquareSums& sums) {
  for (int64_t first = 0; first < blocks.count; first += kBlocks) {
    const int64_t left = blocks.count - first, count = left < kBlocks ? left : kBlocks;
    Eight eight;
    load<element>(blocks, first, count, eight);
    const Scaled scaled(eight);
    __m256 least = loss(scaled.values, 1);
    const __m256i steps = choose(scaled, least);
    add_sums(scaled, eight, least, sums);
    alignas(32) uint32_t codes[kBlocks][4];
    encode(scaled, steps, codes);
    const __m256i scales = _mm256_blendv_epi8(
        integers(kScaleOfNan), _mm256_add_epi32(scaled.scales, steps), scaled.finite);
    alignas(32) int32_t bytes[kBlocks];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), scales);
    for (int64_t b = 0; b < count; ++b) {
      __builtin_memcpy(encoded.codes + (first + b) * encoded.next_codes, codes[b], kBlockCodes);
      encoded.scales[(first + b) * encoded.next_scale] = static_cast<unsigned char>(bytes[b]);
    }
  }
}

template <Element element>
bool all_exact(const NumberBlocks& blocks) {
  for (int64_t first = 0; first < blocks.count; first += kBlocks) {
    const int64_t left = blocks.count - first;
    Eight eight;
    load<element>(blocks, first, left < kBlocks ? left : kBlocks, eight);
    const Scaled scaled(eight);
    const __m256 scale = power(scaled.scales);
    __m256 same = float_of(integers(-1));
    for (int i = 0; i < kBlockNumbers; ++i) {
      const __m256 number = Floats8::load(eight.numbers[i]);
      same = _mm256_and_ps(same, _mm256_cmp_ps(scaled.decoded(i, scale), number, _CMP_EQ_OQ));
    }
    if (_mm256_movemask_ps(same) != 0xff) return false;
  }
  return true;
}

void quantize(const NumberBlocks& blocks, const EncodedBlocks& encoded, SquareSums& sums) {
  switch (blocks.element) {
    case Element::float32:
      return quantize_all<Element::float32>(blocks, encoded, sums);
    case Element::float16:
      return quantize_all<Element::float16>(blocks, encoded, sums);
    case Element::bfloat16:
      return quantize_all<Element::bfloat16>(blocks, encoded, sums);
  }
}

bool is_exact(const NumberBlocks& blocks) {
  switch (blocks.element) {
    case Element::float32:
      return all_exact<Element::float32>(blocks);
    case Element::float16:
      return all_exact<Element::float16>(blocks);
    case Element::bfloat16:
      return all_exact<Element::bfloat16>(blocks);
  }
  return false;
}

}  // namespace

Quantizer quantizer_avx2() { return {quantize, is_exact}; }

}  // namespace gptoss
