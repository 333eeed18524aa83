// MXFP4 times tokens with AVX-512 VNNI: eight-bit dot products, in one, two or three digits of an activation.
//
// A level doubled is an integer, so a block's dot product is one too once its 32 activations are integers of a
// common scale. Such an integer is written in signed digits of base 256, and each digit takes one pass of 8-bit
// dot products over the decoded weights: one digit is mode int8; two hold bfloat16's eight bits 2^8 below the
// block's largest value; three are a fixed point of 23 bits, finer than two terms of bfloat16 and cheaper.
// Sums of a block are exact in int32; blocks add up in float32.
#include <immintrin.h>

#include "mxfp4.h"

namespace gptoss {
namespace {

constexpr size_t kQuad = 4;  // blocks whose low nibbles fill a register
constexpr size_t kLanes = 16;
constexpr size_t kAhead = 2048;  // bytes of a row to prefetch: the best of 512 to 8192
constexpr int kOffset = 12;  // added to doubled levels, −12 … 12, because one side of a dot product is unsigned

// A token's values for four blocks, in the order in which weights meet them.
template <size_t digits>
struct alignas(64) Quad {
  // The last digit first; the values that meet low nibbles, then those that meet high ones; 16 for each block.
  int8_t values[digits][2][kQuad * kBlockBytes];
  // By block −12 · Σ values, which takes the offset back, in the first of its four lanes; zero in the others.
  int32_t correction[kLanes];
  float scale[kLanes];  // by block, in its four lanes; includes the half that undoes the doubled levels
};

// The largest integer of a block, so that 32 products of it with 12 fit in an int32.
template <size_t digits>
constexpr float kLargest = digits == 1 ? 127.0f : digits == 2 ? 127.0f * 256 : 4194304.0f;
constexpr float kSmallest = 0x1p-100f;  // activations below it count as zero: their inverse scale would overflow

size_t quads_of(size_t width) { return (width / kBlock + kQuad - 1) / kQuad; }

template <size_t digits>
size_t packed_bytes(size_t tokens, size_t width) {
  return tokens * quads_of(width) * sizeof(Quad<digits>);
}

// To the nearest bfloat16, ties to even; what is not finite is caught by its block's scale.
__m512 round_to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// Splits 16 integers into their digits and stores each digit's 16 bytes.
template <size_t digits>
void store_digits(__m512i integers, Quad<digits>& quad, size_t half, size_t place) {
  for (size_t digit = 0; digit < digits; ++digit) {
    const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(integers, 24), 24);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(quad.values[digit][half] + place), _mm512_cvtepi32_epi8(low));
    integers = _mm512_srai_epi32(_mm512_sub_epi32(integers, low), 8);
  }
}

template <size_t digits>
void pack_block(const float* x, Quad<digits>& quad, size_t block) {
  __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + kLanes);
  if constexpr (digits == 2) {
    a = round_to_bf16(a);
    b = round_to_bf16(b);
  }
  // The largest magnitude as bits, whose order is that of the numbers, with NaN and infinity on top.
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
                                        _mm512_and_si512(_mm512_castps_si512(b), magnitude));
  const float largest = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(bits))));
  const bool finite = largest <= 0x1.fffffep127f, usable = finite && largest >= kSmallest;
  const __m512 inverse = _mm512_set1_ps(usable ? kLargest<digits> / largest : 0.0f);
  const __mmask16 keep = usable ? 0xffff : 0;  // what is NaN or infinite has no integer
  const __m512i first = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(a, inverse));
  const __m512i second = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(b, inverse));
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  store_digits(_mm512_permutex2var_epi32(first, even, second), quad, 0, block * kBlockBytes);
  store_digits(_mm512_permutex2var_epi32(first, odd, second), quad, 1, block * kBlockBytes);
  const int sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
  _mm_store_si128(reinterpret_cast<__m128i*>(quad.correction + kQuad * block), _mm_setr_epi32(-kOffset * sum, 0, 0, 0));
  // largest − largest is NaN where it is NaN or infinite, and so is then the whole dot product.
  const float scale = finite ? (usable ? largest / kLargest<digits> * 0.5f : 0.0f) : largest - largest;
  _mm_store_ps(quad.scale + kQuad * block, _mm_set1_ps(scale));
}

// The blocks that a last quad lacks: zeros, which multiply the zeros read for the weights.
template <size_t digits>
void pack_nothing(Quad<digits>& quad, size_t block) {
  for (size_t digit = 0; digit < digits; ++digit) {
    for (size_t half = 0; half < 2; ++half) {
      __m128i* values = reinterpret_cast<__m128i*>(quad.values[digit][half] + block * kBlockBytes);
      _mm_store_si128(values, _mm_setzero_si128());
    }
  }
  _mm_store_si128(reinterpret_cast<__m128i*>(quad.correction + kQuad * block), _mm_setzero_si128());
  _mm_store_ps(quad.scale + kQuad * block, _mm_setzero_ps());
}

template <size_t digits>
void pack(const float* x, size_t first, size_t count, size_t width, size_t token, std::byte* packed) {
  auto* quads = reinterpret_cast<Quad<digits>*>(packed) + token * quads_of(width);
  const size_t begin = first / kBlock, end = begin + count / kBlock;
  for (size_t block = begin; block < end; ++block) {
    pack_block(x + (block - begin) * kBlock, quads[block / kQuad], block % kQuad);
  }
  if (end != width / kBlock) return;
  for (size_t block = end; block % kQuad != 0; ++block) pack_nothing(quads[block / kQuad], block % kQuad);
}

// Doubled levels plus the offset, as bytes, of the nibbles in the low halves of the bytes.
__m512i weights_of(__m512i nibbles) {
  const __m512i table = _mm512_broadcast_i32x4(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  return _mm512_shuffle_epi8(table, _mm512_and_si512(nibbles, _mm512_set1_epi8(15)));
}

// Scale bytes, one in each 32-bit lane, as powers of two; only a careful one knows 0 and 255 (scale_factor).
template <bool careful>
__m512 scales_of(__m512i bytes) {
  __m512i bits = _mm512_slli_epi32(bytes, 23);
  if constexpr (careful) {
    const __mmask16 smallest = _mm512_cmpeq_epi32_mask(bytes, _mm512_setzero_si512());
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(bytes, _mm512_set1_epi32(255));
    bits = _mm512_mask_mov_epi32(bits, smallest, _mm512_set1_epi32(0x00400000));
    bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000));
  }
  return _mm512_castsi512_ps(bits);
}

bool has_edge_scale(const uint8_t* scales, size_t blocks) {
  __mmask64 found = 0;
  for (size_t i = 0; i < blocks; i += 64) {
    const __mmask64 here = blocks - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (blocks - i)) - 1;
    const __m512i less_one = _mm512_sub_epi8(_mm512_maskz_loadu_epi8(here, scales + i), _mm512_set1_epi8(1));
    found |= _mm512_mask_cmpge_epu8_mask(here, less_one, _mm512_set1_epi8(static_cast<char>(254)));
  }
  return found != 0;
}

// Dot products of a quad: the digits' sums put together, in int32, by lane.
template <size_t digits>
__m512i quad_dot(__m512i low, __m512i high, const Quad<digits>& quad) {
  __m512i sums[digits];
  for (size_t digit = 0; digit < digits; ++digit) {
    const __m512i start = digit == 0 ? _mm512_load_si512(quad.correction) : _mm512_setzero_si512();
    sums[digit] = _mm512_dpbusd_epi32(start, low, _mm512_load_si512(quad.values[digit][0]));
    sums[digit] = _mm512_dpbusd_epi32(sums[digit], high, _mm512_load_si512(quad.values[digit][1]));
  }
  __m512i sum = sums[digits - 1];
  for (size_t digit = digits - 1; digit > 0; --digit) {
    sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), sums[digit - 1]);
  }
  return sum;
}

// One row against a few tokens, four blocks at a time.
template <size_t digits, size_t tokens, bool careful>
void multiply_row(const uint8_t* bytes, const uint8_t* scales, size_t blocks, const Quad<digits>* quads,
                  float* out, size_t stride) {
  const size_t quads_a_token = (blocks + kQuad - 1) / kQuad;
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  __m512 sums[tokens];
  for (size_t t = 0; t < tokens; ++t) sums[t] = _mm512_setzero_ps();
  const auto add = [&](size_t q, __m512i packed, uint32_t scale_bytes) {
    const __m512i low = weights_of(packed), high = weights_of(_mm512_srli_epi16(packed, 4));
    const __m128i four = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(static_cast<int>(scale_bytes)));
    const __m512 scale = scales_of<careful>(_mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(four)));
    for (size_t t = 0; t < tokens; ++t) {
      const Quad<digits>& quad = quads[t * quads_a_token + q];
      const __m512 dot = _mm512_cvtepi32_ps(quad_dot(low, high, quad));
      sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(dot, scale), _mm512_load_ps(quad.scale), sums[t]);
    }
  };
  const size_t whole = blocks / kQuad;
  for (size_t q = 0; q < whole; ++q) {
    // The hardware prefetcher stops at every page of a mapped file.
    _mm_prefetch(bytes + q * kQuad * kBlockBytes + kAhead, _MM_HINT_T0);
    uint32_t scale_bytes;
    std::memcpy(&scale_bytes, scales + q * kQuad, sizeof scale_bytes);
    add(q, _mm512_loadu_si512(bytes + q * kQuad * kBlockBytes), scale_bytes);
  }
  if (const size_t left = blocks % kQuad; left > 0) {
    // Scales of 1 for the blocks that are not there, since 0 would be an edge.
    uint32_t scale_bytes = 0x7f7f7f7f;
    for (size_t i = 0; i < left; ++i) {
      scale_bytes ^= (0x7fu ^ scales[whole * kQuad + i]) << (8 * i);
    }
    const __mmask64 here = (__mmask64{1} << (left * kBlockBytes)) - 1;
    add(whole, _mm512_maskz_loadu_epi8(here, bytes + whole * kQuad * kBlockBytes), scale_bytes);
  }
  for (size_t t = 0; t < tokens; ++t) out[t * stride] = _mm512_reduce_add_ps(sums[t]);
}

template <size_t digits, size_t tokens>
void multiply_few(const Mxfp4Rows& rows, const Quad<digits>* quads, float* out, size_t stride) {
  const size_t blocks = rows.width / kBlock;
  for (size_t r = 0; r < rows.count; ++r) {
    const uint8_t* bytes = rows.blocks + r * blocks * kBlockBytes;
    const uint8_t* scales = rows.scales + r * blocks;
    const bool edge = has_edge_scale(scales, blocks);
    const auto row = edge ? multiply_row<digits, tokens, true> : multiply_row<digits, tokens, false>;
    row(bytes, scales, blocks, quads, out + r, stride);
  }
}

// Sixteen rows of one block, decoded: lane r of a register holds four weights of row r.
struct alignas(64) PanelBlock {
  uint8_t weights[2][kQuad][64];  // low nibbles, then high ones; by group of four bytes of a block
  float scales[kLanes];
};

size_t scratch_bytes(size_t, size_t width) { return width / kBlock * sizeof(PanelBlock); }

// Four rows' blocks, `stride` bytes from one to the next, four of them between the rows of a register.
__m512i load_rows(const uint8_t* bytes, size_t stride) {
  const auto row = [&](size_t r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + r * stride)); };
  __m512i rows = _mm512_castsi128_si512(row(0));
  rows = _mm512_inserti32x4(rows, row(4), 1);
  rows = _mm512_inserti32x4(rows, row(8), 2);
  return _mm512_inserti32x4(rows, row(12), 3);
}

void decode_panel(const Mxfp4Rows& rows, size_t first, PanelBlock* panel) {
  const size_t blocks = rows.width / kBlock, stride = blocks * kBlockBytes;
  for (size_t block = 0; block < blocks; ++block) {
    const uint8_t* bytes = rows.blocks + (first * blocks + block) * kBlockBytes;
    const __m512i a = load_rows(bytes, stride), b = load_rows(bytes + stride, stride);
    const __m512i c = load_rows(bytes + 2 * stride, stride), d = load_rows(bytes + 3 * stride, stride);
    const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
    const __m512i groups[kQuad] = {_mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
                                   _mm512_unpacklo_epi64(ab_high, cd_high),
                                   _mm512_unpackhi_epi64(ab_high, cd_high)};
    for (size_t i = 0; i < kQuad; ++i) {
      _mm512_store_si512(panel[block].weights[0][i], weights_of(groups[i]));
      _mm512_store_si512(panel[block].weights[1][i], weights_of(_mm512_srli_epi16(groups[i], 4)));
    }
    for (size_t r = 0; r < kLanes; ++r) {
      panel[block].scales[r] = scale_factor(rows.scales[(first + r) * blocks + block]);
    }
  }
}

// Sixteen rows against some tokens: a block's weights stay in registers while the tokens pass.
template <size_t digits, size_t tokens>
void multiply_panel(const PanelBlock* panel, size_t blocks, const Quad<digits>* quads, float* out, size_t stride) {
  const size_t quads_a_token = (blocks + kQuad - 1) / kQuad;
  __m512 sums[tokens];
  for (size_t t = 0; t < tokens; ++t) sums[t] = _mm512_setzero_ps();
  for (size_t block = 0; block < blocks; ++block) {
    __m512i weights[2][kQuad];
    for (size_t half = 0; half < 2; ++half) {
      for (size_t i = 0; i < kQuad; ++i) weights[half][i] = _mm512_load_si512(panel[block].weights[half][i]);
    }
    const __m512 scale = _mm512_load_ps(panel[block].scales);
    for (size_t t = 0; t < tokens; ++t) {
      const Quad<digits>& quad = quads[t * quads_a_token + block / kQuad];
      const size_t lane = block % kQuad * kQuad;
      // A sum for each digit and half: short chains, or the instructions that wait would fill the processor.
      __m512i parts[digits][2];
      for (size_t digit = 0; digit < digits; ++digit) {
        for (size_t half = 0; half < 2; ++half) {
          const bool corrected = digit == 0 && half == 0;
          parts[digit][half] = corrected ? _mm512_set1_epi32(quad.correction[lane]) : _mm512_setzero_si512();
          for (size_t i = 0; i < kQuad; ++i) {
            int32_t four;
            std::memcpy(&four, quad.values[digit][half] + (lane + i) * sizeof four, sizeof four);
            parts[digit][half] = _mm512_dpbusd_epi32(parts[digit][half], weights[half][i], _mm512_set1_epi32(four));
          }
        }
      }
      __m512i sum = _mm512_setzero_si512();
      for (size_t digit = digits; digit-- > 0;) {
        sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), _mm512_add_epi32(parts[digit][0], parts[digit][1]));
      }
      const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(quad.scale[lane]));
      sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[t]);
    }
  }
  for (size_t t = 0; t < tokens; ++t) _mm512_storeu_ps(out + t * stride, sums[t]);
}

template <size_t digits>
void multiply_many(const Mxfp4Rows& rows, const Quad<digits>* quads, size_t tokens, PanelBlock* panel, float* out,
                   size_t stride) {
  constexpr size_t kTile = 8;
  const size_t blocks = rows.width / kBlock, quads_a_token = quads_of(rows.width);
  for (size_t r = 0; r < rows.count; r += kLanes) {
    decode_panel(rows, r, panel);
    size_t t = 0;
    for (; t + kTile <= tokens; t += kTile) {
      multiply_panel<digits, kTile>(panel, blocks, quads + t * quads_a_token, out + t * stride + r, stride);
    }
    for (; t < tokens; ++t) {
      multiply_panel<digits, 1>(panel, blocks, quads + t * quads_a_token, out + t * stride + r, stride);
    }
  }
}

template <size_t digits>
void multiply(const Mxfp4Rows& rows, const PackedTokens& tokens, std::byte* scratch, float* out, size_t stride) {
  const auto* quads = reinterpret_cast<const Quad<digits>*>(tokens.data) + tokens.first * quads_of(rows.width);
  switch (tokens.count) {
    case 0: return;
    case 1: return multiply_few<digits, 1>(rows, quads, out, stride);
    case 2: return multiply_few<digits, 2>(rows, quads, out, stride);
    case 3: return multiply_few<digits, 3>(rows, quads, out, stride);
    case 4: return multiply_few<digits, 4>(rows, quads, out, stride);
    default:
      return multiply_many(rows, quads, tokens.count, reinterpret_cast<PanelBlock*>(scratch), out, stride);
  }
}

template <size_t digits>
constexpr Mxfp4Kernel kKernel = {1, packed_bytes<digits>, pack<digits>, scratch_bytes, multiply<digits>};

}  // namespace

const Mxfp4Kernel& mxfp4_vnni(Activations activations) {
  switch (activations) {
    case Activations::bf16: return kKernel<2>;
    case Activations::int8: return kKernel<1>;
    default: return kKernel<3>;
  }
}

}  // namespace gptoss
