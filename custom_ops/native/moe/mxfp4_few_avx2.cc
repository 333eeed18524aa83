// MXFP4 times a few tokens with AVX2.
#include <immintrin.h>

#include "machine/digits_avx2.h"
#include "moe/mxfp4_few.h"

namespace gptoss {
namespace {

struct FewAvx2 {
  using Ints = __m256i;
  using Floats = __m256;
  using Sum = Ints;  // pairs of products in 16 bits, of which four add up without overflow
  static constexpr size_t kLanes = 8;
  static constexpr size_t kRows = 1;
  static constexpr bool kNarrow = true;

  static Ints nothing() { return _mm256_setzero_si256(); }
  static Ints load(const int8_t* p) { return _mm256_load_si256(reinterpret_cast<const Ints*>(p)); }
  static Ints load(const int32_t* p) { return _mm256_load_si256(reinterpret_cast<const Ints*>(p)); }
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints times_256(Ints x) { return _mm256_slli_epi32(x, 8); }
  static Sum add_products(Sum sum, Ints weights, Ints values) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, values));
    asm("" : "+x"(sum));  // else the compiler adds in another order, with too many registers
    return sum;
  }
  static Ints total(const Sum (&halves)[2]) {
    const Ints ones = _mm256_set1_epi16(1);
    return add(_mm256_madd_epi16(halves[0], ones), _mm256_madd_epi16(halves[1], ones));
  }

  static Floats zero() { return _mm256_setzero_ps(); }
  static Floats load(const float* p) { return _mm256_load_ps(p); }
  static Floats to_float(Ints x) { return _mm256_cvtepi32_ps(x); }
  static Floats product(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats add_product(Floats sum, Floats a, Floats b) { return _mm256_fmadd_ps(a, b, sum); }

  static float sum(Floats x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }

  // Up to 8 blocks, transposed: lane 4h + r of each register has four weights of half h of register
  // r as it comes from memory. Blocks that are not there are zeros.
  template <bool whole>
  static void decode(const uint8_t* bytes, size_t blocks, Ints (&weights)[8]) {
    Ints loaded[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; ++r)
      loaded[r] =
          whole ? _mm256_loadu_si256(reinterpret_cast<const Ints*>(bytes + r * 2 * kBlockBytes))
                : load_halves(bytes, blocks, r);
    const Ints ab_low = _mm256_unpacklo_epi32(loaded[0], loaded[1]);
    const Ints ab_high = _mm256_unpackhi_epi32(loaded[0], loaded[1]);
    const Ints cd_low = _mm256_unpacklo_epi32(loaded[2], loaded[3]);
    const Ints cd_high = _mm256_unpackhi_epi32(loaded[2], loaded[3]);
    const Ints groups[4] = {
        _mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)};
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; ++i) {
      weights[i] = levels(groups[i]);
      weights[4 + i] = levels(_mm256_srli_epi16(groups[i], 4));
    }
  }

  static Ints load_halves(const uint8_t* bytes, size_t blocks, size_t r) {
    const uint8_t* place = bytes + r * 2 * kBlockBytes;
    if (blocks >= 2 * r + 2) return _mm256_loadu_si256(reinterpret_cast<const Ints*>(place));
    if (blocks == 2 * r + 1)
      return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(place)));
    return _mm256_setzero_si256();
  }

  static Ints levels(Ints bytes) {
    const Ints table = _mm256_broadcastsi128_si256(
        _mm_load_si128(reinterpret_cast<const __m128i*>(kOffsetLevels.bytes)));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, _mm256_set1_epi8(15)));
  }

  // The blocks' scales as powers of two, in the order of the transposition.
  template <bool careful, bool whole>
  static Floats scales(const uint8_t* scales, size_t blocks) {
    __m128i bytes;
    if (whole) {
      bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
    } else {
      uint64_t some = 0;
      for (size_t i = 0; i < blocks; ++i) some |= uint64_t{scales[i]} << (8 * i);
      bytes = _mm_cvtsi64_si128(static_cast<long long>(some));
    }
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    Ints bits = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_shuffle_epi8(bytes, order)), 23);
    if constexpr (careful) {
      const Ints infinity = _mm256_set1_epi32(0x7f800000);
      const Ints nan = _mm256_cmpeq_epi32(bits, infinity);
      const Ints zero = _mm256_cmpeq_epi32(bits, _mm256_setzero_si256());
      bits = _mm256_or_si256(bits, _mm256_and_si256(zero, _mm256_set1_epi32(0x00400000)));
      bits = _mm256_or_si256(bits, _mm256_and_si256(nan, _mm256_set1_epi32(0x7fc00000)));
    }
    return _mm256_castsi256_ps(bits);
  }

  // The greatest of `so_far` and a row's scale bytes less one, by lanes of bytes: 0 and 255 become
  // the greatest two. A last register overlaps the one before it.
  static Ints find_edges(Ints so_far, const uint8_t* scales, size_t blocks) {
    const auto find = [&](const uint8_t* bytes) {
      const Ints loaded = _mm256_loadu_si256(reinterpret_cast<const Ints*>(bytes));
      so_far = _mm256_max_epu8(so_far, _mm256_add_epi8(loaded, _mm256_set1_epi8(-1)));
    };
    for (size_t i = 0; i + 32 <= blocks; i += 32) find(scales + i);
    if (blocks >= 32) {
      find(scales + blocks - 32);
    } else {
      alignas(32) uint8_t some[32];
      std::memset(some, 1, sizeof some);
      for (size_t i = 0; i < blocks; ++i) some[i] = scales[i];
      find(some);
    }
    return so_far;
  }
  static bool found_edge(Ints found) {
    const Ints edges = _mm256_cmpeq_epi8(_mm256_max_epu8(found, _mm256_set1_epi8(-2)), found);
    return _mm256_movemask_epi8(edges) != 0;
  }

  // Writes the digits of a block's 32 values as integers below `largest`, the even ones first, and
  // their sum; returns their scale, which is NaN where a value is NaN or infinite.
  template <bool rounded, size_t digits>
  static float split(const float* x, float largest, int8_t (&bytes)[digits][kBlock], int& sum) {
    const auto [integers, scale] = to_integers<rounded>(x, largest);
    const Ints total = add(add(integers[0], integers[1]), add(integers[2], integers[3]));
    sum = sum_of(_mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1)));
    store_digits(every_other<0>(integers[0], integers[1]), every_other<0>(integers[2], integers[3]),
                 bytes, 0);
    store_digits(every_other<1>(integers[0], integers[1]), every_other<1>(integers[2], integers[3]),
                 bytes, kBlockBytes);
    return scale;
  }

  // The even lanes of both, or the odd ones.
  template <int odd>
  static Ints every_other(Ints a, Ints b) {
    constexpr int kChosen = odd ? 0xdd : 0x88;
    const Floats lanes = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), kChosen);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(lanes), 0xd8);
  }

  // Writes the digits of 16 integers, the last digit first: 16 bytes from `place` on in each row.
  template <size_t digits>
  static void store_digits(Ints first, Ints second, int8_t (&rows)[digits][kBlock], size_t place) {
    const Ints byte = _mm256_set1_epi32(0xff), half = _mm256_set1_epi32(0x80);
    for (size_t digit = 0; digit < digits; ++digit) {
      const Ints words = _mm256_permute4x64_epi64(
          _mm256_packus_epi32(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte)), 0xd8);
      const __m128i packed =
          _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(rows[digit] + place), packed);
      // A digit is the last byte with its sign; what is left is a multiple of 256.
      first = _mm256_srai_epi32(_mm256_add_epi32(first, half), 8);
      second = _mm256_srai_epi32(_mm256_add_epi32(second, half), 8);
    }
  }
};

}  // namespace

const Mxfp4Kernel& mxfp4_few_avx2(Activations activations) {
  return few_kernel<FewAvx2>(activations);
}

}  // namespace gptoss
