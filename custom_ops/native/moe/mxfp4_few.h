// MXFP4 times a few tokens in eight-bit dot products: while they wait for memory, nothing else
// counts, and each weight is read and decoded once for all of them.
//
// A chunk is as many blocks of a row as a register has lanes. Transposed on its way from memory,
// its lane belongs to one block: register i of a chunk holds bytes 4i … 4i + 3 of each block. So a
// block's 32 products add up in one lane, and a chunk needs one conversion to float32 and one
// multiplication by the scales for each row and token.
//
// A token's lanes are added up in one order however many tokens are with it, so that its bits do
// not depend on them.
//
// `V` names the instructions of a level:
//   Ints, Floats, kLanes     registers, and lanes of 32 bits
//   kRows                    rows that a token's values meet while they are in a register
//   Sum                      of products of bytes; kNarrow: in 16 bits, which hold those of a half
//   decode, scales, …        see mxfp4_few_avx512.h and mxfp4_few_avx2.cc
//
// Included by files that are compiled for one level, each with a V of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "moe/mxfp4.h"
#include "moe/mxfp4_levels.h"

namespace gptoss {

template <class V, size_t digits>
struct Mxfp4Few {
  using Ints = typename V::Ints;
  using Floats = typename V::Floats;

  static constexpr size_t kLanes = V::kLanes, kRows = V::kRows;
  static constexpr size_t kMost = 8;         // tokens that pass at once
  static constexpr size_t kMostStreams = 8;  // rows that are read side by side
  static constexpr size_t kLine = 64;
  static constexpr int kSecondLevel = 2;     // cache, as __builtin_prefetch names it
  static constexpr size_t kScalesAhead = 3;  // rows whose scales to prefetch
  static constexpr size_t kGroups = kBlockBytes / 4;
  static constexpr size_t kChunkBytes = kLanes * kBlockBytes;

  // A token's values for one chunk, in the order in which weights meet them.
  struct alignas(kLine) Chunk {
    // By digit, the last one first, and register of weights: low nibbles, then high ones.
    int8_t values[digits][2 * kGroups][4 * kLanes];
    int32_t correction[kLanes];  // −12 · Σ values, which takes the weights' offset back
    float scale[kLanes];         // includes the half that undoes the doubled levels
  };

  static size_t chunks_of(size_t width) { return (width / kBlock + kLanes - 1) / kLanes; }

  static size_t packed_bytes(size_t tokens, size_t width) {
    return tokens * chunks_of(width) * sizeof(Chunk);
  }

  static void pack(const float* x, size_t first, size_t count, size_t width, size_t token,
                   std::byte* packed) {
    auto* chunks = reinterpret_cast<Chunk*>(packed) + token * chunks_of(width);
    const size_t begin = first / kBlock, end = begin + count / kBlock;
    for (size_t block = begin; block < end; ++block) {
      pack_block(x + (block - begin) * kBlock, chunks[block / kLanes], lane_of(block % kLanes));
    }
    if (end != width / kBlock) return;
    for (size_t block = end; block % kLanes != 0; ++block)
      pack_nothing(chunks[block / kLanes], lane_of(block % kLanes));
  }

  // Where the transposition leaves a chunk's block: quarter q of register r goes to lane 4q + r.
  static size_t lane_of(size_t block) {
    constexpr size_t kQuarters = kLanes / kGroups;
    return block % kQuarters * kGroups + block / kQuarters;
  }

  static void pack_block(const float* x, Chunk& chunk, size_t lane) {
    // values that meet low nibbles, then those that meet high ones
    alignas(kLine) int8_t bytes[digits][kBlock];
    int sum;
    chunk.scale[lane] = 0.5f * V::template split<digits == 2>(x, kLargest<digits>, bytes, sum);
    chunk.correction[lane] = -kOffset * sum;
    for (size_t digit = 0; digit < digits; ++digit) {
      for (size_t i = 0; i < 2 * kGroups; ++i)
        std::memcpy(chunk.values[digit][i] + 4 * lane, bytes[digit] + 4 * i, 4);
    }
  }

  // A block that a last chunk lacks: zeros, which multiply the zeros read for the weights.
  static void pack_nothing(Chunk& chunk, size_t lane) {
    chunk.scale[lane] = 0;
    chunk.correction[lane] = 0;
    for (size_t digit = 0; digit < digits; ++digit) {
      for (size_t i = 0; i < 2 * kGroups; ++i) std::memset(chunk.values[digit][i] + 4 * lane, 0, 4);
    }
  }

  // The sums of the rows that are multiplied side by side.
  static size_t scratch_bytes(size_t tokens, size_t) {
    return kMostStreams * (tokens < kMost ? tokens : kMost) * sizeof(Floats);
  }

  // Rows that are read side by side, and bytes of each to ask for ahead. Several tokens read more
  // rows, so that a chunk of theirs stays in the first-level cache the longer.
  struct Streams {
    size_t count, ahead;
  };
  static Streams streams_for(size_t tokens) {
    return tokens == 1 ? Streams{4, 3072} : Streams{kMostStreams, 2048};
  }

  // Rows that are multiplied side by side, `step` rows apart: each is a stream of its own from
  // memory. A single one would wait at the start of every page of the mapped file, where the
  // hardware prefetcher stops.
  struct Lockstep {
    const uint8_t* bytes;  // of the first one
    const uint8_t* scales;
    size_t step, blocks;  // of a row
    Streams streams;

    const uint8_t* bytes_of(size_t stream) const {
      return bytes + stream * step * blocks * kBlockBytes;
    }
    const uint8_t* scales_of(size_t stream) const { return scales + stream * step * blocks; }
  };

  struct Tokens {
    const Chunk* chunks;  // [count][chunks]
    size_t count;
    size_t chunks_each;
  };

  static void multiply(const Mxfp4Rows& rows, const PackedTokens& packed, std::byte* scratch,
                       float* out, size_t stride) {
    const size_t blocks = rows.width / kBlock;
    const Streams streams = streams_for(packed.count);
    const size_t step = rows.count / streams.count;
    const size_t chunks = chunks_of(rows.width);
    const auto* first = reinterpret_cast<const Chunk*>(packed.data) + packed.first * chunks;
    const size_t passes = (packed.count + kMost - 1) / kMost;
    auto* sums = reinterpret_cast<Floats*>(scratch);
    for (size_t i = 0; i < streams.ahead; i += kLine) {
      for (size_t s = 0; s < streams.count; ++s)
        __builtin_prefetch(rows.blocks + s * step * blocks * kBlockBytes + i, 0, kSecondLevel);
    }
    for (size_t r = 0; r < step; ++r) {
      const Lockstep lockstep{rows.blocks + r * blocks * kBlockBytes, rows.scales + r * blocks,
                              step, blocks, streams};
      for (size_t pass = 0; pass < passes; ++pass) {
        const size_t begin = packed.count * pass / passes;
        const size_t end = packed.count * (pass + 1) / passes;
        const Tokens tokens{first + begin * chunks, end - begin, chunks};
        float* place = out + begin * stride + r;
        multiply_rows<false>(lockstep, tokens, sums, place, stride);
        // Only now are the scales in the cache for certain, and edges are rare: what has one is
        // computed once more.
        if (has_edge(lockstep)) multiply_rows<true>(lockstep, tokens, sums, place, stride);
      }
      for (size_t s = 0; s < streams.count; ++s) {
        const uint8_t* scales = lockstep.scales_of(s) + kScalesAhead * blocks;
        for (size_t i = 0; i < blocks; i += kLine) __builtin_prefetch(scales + i);
      }
    }
  }

  // Whether one of the scale bytes is 0 or 255.
  static bool has_edge(const Lockstep& rows) {
    Ints found = V::nothing();
    for (size_t s = 0; s < rows.streams.count; ++s)
      found = V::find_edges(found, rows.scales_of(s), rows.blocks);
    return V::found_edge(found);
  }

  // Only a careful call knows the scale bytes 0 and 255 (scale_factor).
  template <bool careful>
  static void multiply_rows(const Lockstep& rows, const Tokens& tokens, Floats* sums, float* out,
                            size_t stride) {
    if (tokens.count == 1) return multiply_one<careful>(rows, tokens.chunks, out);
    for (size_t i = 0; i < rows.streams.count * tokens.count; ++i) sums[i] = V::zero();
    const size_t whole = rows.blocks / kLanes;
    for (size_t q = 0; q < whole; ++q) add_chunk<careful, true>(rows, tokens, q, kLanes, sums);
    if (const size_t left = rows.blocks % kLanes; left > 0)
      add_chunk<careful, false>(rows, tokens, whole, left, sums);
    for (size_t s = 0; s < rows.streams.count; ++s) {
      for (size_t t = 0; t < tokens.count; ++t)
        out[t * stride + s * rows.step] = V::sum(sums[s * tokens.count + t]);
    }
  }

  // A chunk of several tokens meets all rows before the next one, so that it is still in the
  // first-level cache.
  template <bool careful, bool whole>
  [[gnu::always_inline]] static void add_chunk(const Lockstep& rows, const Tokens& tokens, size_t q,
                                               size_t blocks, Floats* sums) {
    const Chunk* chunk = tokens.chunks + q;
    const size_t count = tokens.count, next = tokens.chunks_each;
    for (size_t s = 0; s < rows.streams.count; s += kRows) {
      const Weights weights = decode<careful, whole>(rows, s, q, blocks);
      for (size_t t = 0; t < count; ++t) add_token(weights, chunk[t * next], sums + t, count);
      sums += kRows * count;
    }
  }

  // One token's chunks fit the cache, and its sums the registers.
  template <bool careful>
  static void multiply_one(const Lockstep& rows, const Chunk* token, float* out) {
    const size_t whole = rows.blocks / kLanes, left = rows.blocks % kLanes;
    for (size_t s = 0; s < rows.streams.count; s += kRows) {
      Floats lanes[kRows];
#pragma GCC unroll 2
      for (size_t r = 0; r < kRows; ++r) lanes[r] = V::zero();
      for (size_t q = 0; q < whole; ++q)
        add_token(decode<careful, true>(rows, s, q, kLanes), token[q], lanes, 1);
      if (left > 0) add_token(decode<careful, false>(rows, s, whole, left), token[whole], lanes, 1);
#pragma GCC unroll 2
      for (size_t r = 0; r < kRows; ++r) out[(s + r) * rows.step] = V::sum(lanes[r]);
    }
  }

  // A chunk of some rows.
  struct Weights {
    Ints values[kRows][2 * kGroups];
    Floats scales[kRows];
  };

  template <bool careful, bool whole>
  [[gnu::always_inline]] static Weights decode(const Lockstep& rows, size_t s, size_t q,
                                               size_t blocks) {
    Weights weights;
#pragma GCC unroll 2
    for (size_t r = 0; r < kRows; ++r) {
      const uint8_t* bytes = rows.bytes_of(s + r) + q * kChunkBytes;
      for (size_t line = 0; line < kChunkBytes; line += kLine)
        __builtin_prefetch(bytes + rows.streams.ahead + line, 0, kSecondLevel);
      V::template decode<whole>(bytes, blocks, weights.values[r]);
      weights.scales[r] =
          V::template scales<careful, whole>(rows.scales_of(s + r) + q * kLanes, blocks);
    }
    return weights;
  }

  // Adds a chunk's products with some rows to the sums of a token, each `next` behind the last.
  [[gnu::always_inline]] static void add_token(const Weights& weights, const Chunk& chunk,
                                               Floats* sums, size_t next) {
    constexpr size_t halves = V::kNarrow ? 2 : 1;
    typename V::Sum parts[kRows][digits][halves];
#pragma GCC unroll 2  // these loops are unrolled to keep the sums in registers
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
      for (size_t digit = 0; digit < digits; ++digit) {
#pragma GCC unroll 2
        for (size_t half = 0; half < halves; ++half) parts[r][digit][half] = V::nothing();
      }
      if constexpr (!V::kNarrow) parts[r][0][0] = V::load(chunk.correction);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 2 * kGroups; ++i) {
#pragma GCC unroll 3
      for (size_t digit = 0; digit < digits; ++digit) {
        const Ints values = V::load(chunk.values[digit][i]);
#pragma GCC unroll 2
        for (size_t r = 0; r < kRows; ++r) {
          auto& part = parts[r][digit][i / kGroups * halves / 2];
          part = V::add_products(part, weights.values[r][i], values);
        }
      }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < kRows; ++r) {
      Ints sum = V::total(parts[r][digits - 1]);
      if constexpr (digits > 2) sum = V::add(V::times_256(sum), V::total(parts[r][1]));
      if constexpr (digits > 1) sum = V::add(V::times_256(sum), V::total(parts[r][0]));
      if constexpr (V::kNarrow) sum = V::add(sum, V::load(chunk.correction));
      const Floats both = V::product(weights.scales[r], V::load(chunk.scale));
      Floats& lanes = sums[r * next];
      lanes = V::add_product(lanes, V::to_float(sum), both);
    }
  }

  static constexpr Mxfp4Kernel kKernel = {1, packed_bytes, pack, scratch_bytes, multiply};
};

template <class V>
const Mxfp4Kernel& few_kernel(Activations activations) {
  switch (activations) {
    case Activations::bf16:
      return Mxfp4Few<V, 2>::kKernel;
    case Activations::int8:
      return Mxfp4Few<V, 1>::kKernel;
    default:
      return Mxfp4Few<V, 3>::kKernel;
  }
}

}  // namespace gptoss
