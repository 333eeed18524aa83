// How the next token is drawn from the scores of one row: what the runtime's RowSampler does in
// numpy, which is the definition, in the same order and on the same random number.
#pragma once

#include <cstdint>

#include "machine/cpu_features.h"

namespace gptoss {

constexpr int64_t kBlock = 1024;  // scores weighed at a time; what it takes lies in the L1 cache
constexpr int kBins = 4096;       // of scores; the first holds all that are below kLowest
constexpr double kLowest = -32;

// Where the largest score is 0: a score x is (x − top) / temperature, and out where that is below
// `least`.
struct Scale {
  double top;
  double temperature;
  double least;

  template <class Score>
  double operator()(Score x) const {
    return (static_cast<double>(x) - top) / temperature;
  }
};

// The settings of one draw, of Sampling in the runtime; 0 turns top_k and min_p off, 1 top_p.
struct Draw {
  double temperature;
  int64_t top_k;
  double top_p;
  double min_p;
  double uniform;  // 0 ≤ u < 1
};

// The passes over a block of at most kBlock scores, float or double.
template <class Score>
struct BlockPasses {
  // Writes the weight exp(score) of each, 0 for those that are out, and its bin, which rises with
  // the score. Returns the sum of the weights.
  double (*weigh)(const Score* scores, int64_t count, const Scale& scale, double* weights,
                  uint16_t* bins);
  // Sets the weights of those below `scale.least` to 0. Returns the sum of all.
  double (*keep)(const Score* scores, int64_t count, const Scale& scale, double* weights);
};

template <class Score>
BlockPasses<Score> passes_scalar();
template <class Score>
BlockPasses<Score> passes_avx2();
template <class Score>
BlockPasses<Score> passes_avx512();

// What a draw works with, of as many elements as there are scores.
struct Workspace {
  double* weights;
  uint16_t* bins;
};

// Draws a token. `top` is the largest of the `vocab` scores, which are finite or −∞. Throws
// std::bad_alloc.
template <class Score>
int64_t draw_token(const Score* scores, int64_t vocab, double top, const Draw& draw,
                   const Workspace& workspace, CpuLevel level);

}  // namespace gptoss
