// MXFP4 times a few tokens with AVX-512 VNNI, at the speed of memory: while decoding, nothing else
// counts.
//
// A Decode turns nibbles into doubled levels plus kOffset, as bytes:
//   static __m512i low(__m512i bytes), high(__m512i bytes);
//
// Included by files that are compiled with AVX-512 alone, as mxfp4_digits.h.
#pragma once

#include "moe/mxfp4_digits.h"

namespace gptoss {
namespace {

constexpr size_t kStreams = 8;  // rows that are read side by side
constexpr size_t kAhead = 512;  // bytes of each to prefetch
constexpr size_t kLineBytes = 64;
constexpr size_t kScalesAhead = 3;  // rows whose scales to prefetch

// Scales of four blocks as powers of two, each in four lanes; only a careful one knows the bytes 0
// and 255 (scale_factor).
template <bool careful>
__m512 four_scales(uint32_t bytes) {
  // Turns each lane until its block's byte lies where a float has its exponent.
  const __m512i turns =
      _mm512_setr_epi32(23, 23, 23, 23, 15, 15, 15, 15, 7, 7, 7, 7, 31, 31, 31, 31);
  const __m512i exponent = _mm512_set1_epi32(0x7f800000);
  __m512i bits = _mm512_and_si512(
      _mm512_rolv_epi32(_mm512_set1_epi32(static_cast<int>(bytes)), turns), exponent);
  if constexpr (careful) {
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(bits, exponent);
    bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(bits, bits),
                                 _mm512_set1_epi32(0x00400000));
    bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000));
  }
  return _mm512_castsi512_ps(bits);
}

// Whether one of a row's scale bytes is 0 or 255.
bool has_edge_scale(const uint8_t* scales, size_t blocks) {
  __mmask64 found = 0;
  for (size_t i = 0; i < blocks; i += 64) {
    const __mmask64 here = blocks - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (blocks - i)) - 1;
    const __m512i less_one =
        _mm512_sub_epi8(_mm512_maskz_loadu_epi8(here, scales + i), _mm512_set1_epi8(1));
    found |= _mm512_mask_cmpge_epu8_mask(here, less_one, _mm512_set1_epi8(static_cast<char>(254)));
  }
  return found != 0;
}

// Dot products of a quad: the digits' sums put together, in int32, by lane. Eight products of a
// digit with at most 24 fit in 16 bits, so that one instruction multiplies and adds the second
// digit's.
template <size_t digits>
__m512i quad_dot(__m512i low, __m512i high, const Quad<digits>& quad) {
  __m512i sums[digits];
#pragma GCC unroll 3
  for (size_t digit = 0; digit < digits; ++digit) {
    const __m512i start = digit == 0 ? _mm512_load_si512(quad.correction) : _mm512_setzero_si512();
    sums[digit] = _mm512_dpbusd_epi32(start, low, _mm512_load_si512(quad.values[0][digit]));
    sums[digit] = _mm512_dpbusd_epi32(sums[digit], high, _mm512_load_si512(quad.values[1][digit]));
  }
  __m512i sum = sums[0];
  if constexpr (digits > 1) sum = _mm512_dpwssd_epi32(sum, sums[1], _mm512_set1_epi32(1 << 8));
  if constexpr (digits > 2) sum = _mm512_add_epi32(sum, _mm512_slli_epi32(sums[2], 16));
  return sum;
}

// Rows that are multiplied side by side, `step` rows apart: `bytes` and `scales` are the first
// one's.
struct Lockstep {
  const uint8_t* bytes;
  const uint8_t* scales;
  size_t step, blocks;  // of a row

  const uint8_t* bytes_of(size_t stream) const {
    return bytes + stream * step * blocks * kBlockBytes;
  }
  const uint8_t* scales_of(size_t stream) const { return scales + stream * step * blocks; }
};

// Some rows against a few tokens, four blocks at a time. Each row is a stream of its own from
// memory: a single one would wait at the start of every page of the mapped file, where the hardware
// prefetcher stops.
template <class Decode, size_t digits, size_t tokens, size_t streams, bool careful>
void multiply_rows(const Lockstep& rows, const Quad<digits>* quads, float* out, size_t stride) {
  const size_t quads_a_token = (rows.blocks + kQuad - 1) / kQuad;
  __m512 sums[streams][tokens];
#pragma GCC unroll 8  // these loops are unrolled to keep the sums in registers
  for (size_t s = 0; s < streams; ++s) {
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) sums[s][t] = _mm512_setzero_ps();
  }
  const auto add = [&](size_t s, size_t q, __m512i packed, uint32_t scale_bytes) {
    const __m512i low = Decode::low(packed), high = Decode::high(packed);
    const __m512 scale = four_scales<careful>(scale_bytes);
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t) {
      const Quad<digits>& quad = quads[t * quads_a_token + q];
      const __m512 dot = _mm512_cvtepi32_ps(quad_dot(low, high, quad));
      sums[s][t] =
          _mm512_fmadd_ps(_mm512_mul_ps(dot, scale), _mm512_load_ps(quad.scale), sums[s][t]);
    }
  };
  const size_t whole = rows.blocks / kQuad;
  for (size_t q = 0; q < whole; ++q) {
#pragma GCC unroll 8
    for (size_t s = 0; s < streams; ++s) {
      const uint8_t* line = rows.bytes_of(s) + q * kQuad * kBlockBytes;
      _mm_prefetch(line + kAhead, _MM_HINT_T0);
      uint32_t scale_bytes;
      std::memcpy(&scale_bytes, rows.scales_of(s) + q * kQuad, sizeof scale_bytes);
      add(s, q, _mm512_loadu_si512(line), scale_bytes);
    }
  }
  if (const size_t left = rows.blocks % kQuad; left > 0) {
    const __mmask64 here = (__mmask64{1} << (left * kBlockBytes)) - 1;
#pragma GCC unroll 8
    for (size_t s = 0; s < streams; ++s) {
      // Scales of 1 for the blocks that are not there, since 0 would be an edge.
      uint32_t scale_bytes = 0x7f7f7f7f;
      for (size_t i = 0; i < left; ++i) {
        scale_bytes ^= (0x7fu ^ rows.scales_of(s)[whole * kQuad + i]) << (8 * i);
      }
      add(s, whole, _mm512_maskz_loadu_epi8(here, rows.bytes_of(s) + whole * kQuad * kBlockBytes),
          scale_bytes);
    }
  }
#pragma GCC unroll 8
  for (size_t s = 0; s < streams; ++s) {
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; ++t)
      out[t * stride + s * rows.step] = _mm512_reduce_add_ps(sums[s][t]);
  }
}

template <class Decode, size_t digits, size_t tokens>
void multiply_few(const Mxfp4Rows& rows, const Quad<digits>* quads, float* out, size_t stride) {
  constexpr size_t streams =
      tokens <= 2 ? kStreams : kStreams / 2;  // as many sums as there are registers for
  const size_t blocks = rows.width / kBlock, step = rows.count / streams;
  for (size_t i = 0; i < kAhead; i += kLineBytes) {
    for (size_t s = 0; s < streams; ++s) {
      _mm_prefetch(rows.blocks + s * step * blocks * kBlockBytes + i, _MM_HINT_T0);
    }
  }
  for (size_t r = 0; r < step; ++r) {
    const Lockstep lockstep{rows.blocks + r * blocks * kBlockBytes, rows.scales + r * blocks, step,
                            blocks};
    multiply_rows<Decode, digits, tokens, streams, false>(lockstep, quads, out + r, stride);
    // Only now are the scales in the cache for certain, and edges are rare: what has one is
    // computed once more.
    bool edge = false;
    for (size_t s = 0; s < streams; ++s) edge |= has_edge_scale(lockstep.scales_of(s), blocks);
    if (edge)
      multiply_rows<Decode, digits, tokens, streams, true>(lockstep, quads, out + r, stride);
    for (size_t s = 0; s < streams; ++s)
      _mm_prefetch(lockstep.scales_of(s) + kScalesAhead * blocks, _MM_HINT_T0);
  }
}

}  // namespace
}  // namespace gptoss
