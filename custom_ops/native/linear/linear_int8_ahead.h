// Asks memory for the rows of LinearInt8 that come next.
#pragma once

#include <cstddef>

#include "linear/linear_kernels.h"

namespace gptoss {

// What the next panel will be made of. Its lines are asked for a few at a time, while this one is
// turned and multiplied, so that memory does not wait for arithmetic; and in several streams, as
// the kernels for one token read.
template <class V, size_t kRows>  // V only keeps the copies of files for different levels apart
struct RowsAhead {
  static constexpr size_t kStreams = 4, kStreamRows = kRows / kStreams;

  const unsigned char* weights;
  const unsigned char* scales;
  size_t row_bytes, scale_bytes;  // from one row to the next
  size_t bytes;                   // of a row
  size_t lines, steps;            // of each stream, to be spread over so many calls
  size_t due = 0;
  size_t at = 0;  // in the row

  void fetch() {
    for (due += lines; due >= steps && lines > 0; due -= steps) {
#pragma GCC unroll 8
      for (size_t stream = 0; stream < kStreams; ++stream)
        __builtin_prefetch(weights + stream * kStreamRows * row_bytes + at, 0, 2);
      if (at / kScaleBlock * sizeof(float) % kLine == 0) {
        for (size_t stream = 0; stream < kStreams; ++stream) {
          __builtin_prefetch(
              scales + stream * kStreamRows * scale_bytes + at / kScaleBlock * sizeof(float), 0, 2);
        }
      }
      at += kLine;
      if (at < bytes) continue;
      at = 0;
      weights += row_bytes, scales += scale_bytes;
    }
  }
};

}  // namespace gptoss
