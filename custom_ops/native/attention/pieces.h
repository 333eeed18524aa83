// How a call of SinkAttention is cut: blocks of queries, and pieces of the positions that they see.
#pragma once

#include <cstdint>

namespace gptoss {

// Queries of one row and kv head, tokens [token, token + tokens), and the part of the cache's ring
// that they see.
struct Block {
  int64_t row;      // b
  int64_t kv_head;  // k
  int64_t token;
  int64_t tokens;
  int64_t begin;  // positions [begin, end), counted from the first that is not kept
  int64_t end;
  int64_t pieces;       // the positions are split into so many
  int64_t first_piece;  // index among all pieces of the call
};

// Sums, peaks and totals (attention.h) of one piece.
struct Part {
  float* sums;
  float* peaks;
  float* totals;
};

}  // namespace gptoss
