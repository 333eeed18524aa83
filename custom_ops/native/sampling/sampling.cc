// The draw, and the scalar passes.
//
// A vocabulary has 200,000 tokens, and sorting them for top-k and top-p would take longer than a
// layer of the model. Their scores are counted and weighed into bins instead; only the bin that
// the limit falls into is looked at token by token.
#include "sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace gptoss {
namespace {

template <class Score>
double weigh_scalar(const Score* scores, int64_t count, const Scale& scale, double* weights,
                    uint16_t* bins) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double score = scale(scores[i]);
    const double place = (score - kLowest) * (kBins / -kLowest);
    bins[i] = static_cast<uint16_t>(std::clamp(place, 0.0, kBins - 1.0));
    weights[i] = score >= scale.least ? std::exp(score) : 0;
    sum += weights[i];
  }
  return sum;
}

template <class Score>
double keep_scalar(const Score* scores, int64_t count, const Scale& scale, double* weights) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!(scale(scores[i]) >= scale.least)) weights[i] = 0;
    sum += weights[i];
  }
  return sum;
}

template <class Score>
BlockPasses<Score> passes(CpuLevel level) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512) return passes_avx512<Score>();
  if (level >= CpuLevel::avx2) return passes_avx2<Score>();
#endif
  (void)level;
  return passes_scalar<Score>();
}

// A row while it is drawn from.
template <class Score>
struct Row {
  const Score* scores;
  int64_t vocab;
  Scale scale;
  double* weights;
  uint16_t* bins;
  BlockPasses<Score> pass;
  std::vector<double> sums;  // of the weights of each block

  int64_t blocks() const { return (vocab + kBlock - 1) / kBlock; }
  int64_t size(int64_t block) const { return std::min(kBlock, vocab - block * kBlock); }

  void weigh() {
    for (int64_t block = 0; block < blocks(); ++block) {
      const int64_t first = block * kBlock;
      sums[block] = pass.weigh(scores + first, size(block), scale, weights + first, bins + first);
    }
  }

  void keep() {
    for (int64_t block = 0; block < blocks(); ++block) {
      const int64_t first = block * kBlock;
      sums[block] = pass.keep(scores + first, size(block), scale, weights + first);
    }
  }

  // Calls `use` with first and end of each block that has a weight.
  template <class Use>
  void for_weighed(const Use& use) const {
    for (int64_t block = 0; block < blocks(); ++block)
      if (sums[block] > 0) use(block * kBlock, block * kBlock + size(block));
  }

  double total() const {
    double sum = 0;
    for (const double each : sums) sum += each;
    return sum;
  }
};

// Returns the k-th largest score, k at most the vocabulary.
template <class Score>
double kth_largest(const Row<Score>& row, int64_t k) {
  std::vector<int64_t> counts(kBins);
  for (int64_t i = 0; i < row.vocab; ++i) ++counts[row.bins[i]];
  int bin = kBins - 1;
  while (k > counts[bin]) k -= counts[bin--];
  std::vector<double> found;
  found.reserve(counts[bin]);
  for (int64_t i = 0; i < row.vocab; ++i)
    if (row.bins[i] == bin) found.push_back(row.scale(row.scores[i]));
  const auto place = found.begin() + (k - 1);
  std::nth_element(found.begin(), place, found.end(), std::greater<double>());
  return *place;
}

struct Entry {
  double score;
  int64_t token;
};

// Puts out of the nucleus, among the `entries` of one bin, those that have, with all less probable
// ones, at most `limit` of the weight; `below` is the weight of all lower bins. Of equally probable
// tokens the last go first. Returns the least score that stays.
double cut_bin(std::vector<Entry>& entries, double below, double limit, double* weights) {
  auto first = entries.begin(), last = entries.end();
  const auto weight = [weights](double sum, const Entry& entry) {
    return sum + weights[entry.token];
  };
  while (true) {
    const double pivot = (first + (last - first) / 2)->score;
    const auto equal =
        std::partition(first, last, [pivot](const Entry& each) { return each.score < pivot; });
    const auto greater =
        std::partition(equal, last, [pivot](const Entry& each) { return each.score == pivot; });
    const double less = std::accumulate(first, equal, below, weight);
    if (less > limit) {
      last = equal;
      continue;
    }
    double sum = less;
    int64_t out = 0;
    while (out < greater - equal && (sum += weights[equal->token]) <= limit) ++out;
    if (out == greater - equal && greater != last) {
      below = sum;
      first = greater;
      continue;
    }
    out = std::min<int64_t>(out, greater - equal - 1);  // the most probable one stays, always
    const auto later = [](const Entry& a, const Entry& b) { return a.token > b.token; };
    std::nth_element(equal, equal + out, greater, later);
    for (auto each = equal; each != equal + out; ++each) weights[each->token] = 0;
    return pivot;
  }
}

// Leaves the weights of the fewest most probable tokens that have `top_p` of all of it together.
template <class Score>
void cut_nucleus(Row<Score>& row, double top_p) {
  // Two sums a bin in turn: neighbours often have the same one, and would wait for each other.
  std::vector<double> even(kBins), odd(kBins);
  row.for_weighed([&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) (i % 2 == 0 ? even : odd)[row.bins[i]] += row.weights[i];
  });
  const double limit = (1 - top_p) * row.total();
  double below = 0;
  int bin = 0;
  while (bin < kBins - 1 && below + (even[bin] + odd[bin]) <= limit) {
    below += even[bin] + odd[bin];
    ++bin;
  }
  std::vector<Entry> entries;
  row.for_weighed([&](int64_t first, int64_t end) {
    for (int64_t token = first; token < end; ++token)
      if (row.bins[token] == bin && row.weights[token] > 0)
        entries.push_back({row.scale(row.scores[token]), token});
  });
  row.scale.least = std::max(row.scale.least, cut_bin(entries, below, limit, row.weights));
}

// Returns the token at which the sum of the weights, in the order of the tokens, exceeds u of all.
template <class Score>
int64_t token_at(const Row<Score>& row, double uniform) {
  const double target = uniform * row.total();
  double sum = 0, before = 0;
  int64_t start = 0;  // the last block with a weight where rounding leaves the target beyond
  for (int64_t block = 0; block < row.blocks(); ++block) {
    if (row.sums[block] == 0) continue;
    start = block;
    before = sum;
    sum += row.sums[block];
    if (sum > target) break;
  }
  int64_t last = start * kBlock;
  for (int64_t token = start * kBlock; token < row.vocab; ++token) {
    if (row.weights[token] == 0) continue;
    last = token;
    before += row.weights[token];
    if (before > target) break;
  }
  return last;
}

}  // namespace

template <class Score>
BlockPasses<Score> passes_scalar() {
  return {weigh_scalar<Score>, keep_scalar<Score>};
}

template BlockPasses<float> passes_scalar();
template BlockPasses<double> passes_scalar();

template <class Score>
int64_t draw_token(const Score* scores, int64_t vocab, double top, const Draw& draw,
                   const Workspace& workspace, CpuLevel level) {
  const double everything = -std::numeric_limits<double>::infinity();
  Row<Score> row{scores,
                 vocab,
                 {top, draw.temperature, everything},
                 workspace.weights,
                 workspace.bins,
                 passes<Score>(level),
                 {}};
  row.sums.resize(row.blocks());
  row.weigh();
  bool cut = false;
  if (0 < draw.top_k && draw.top_k < vocab) {
    row.scale.least = kth_largest(row, draw.top_k);
    row.keep();
  }
  if (draw.top_p < 1) {
    cut_nucleus(row, draw.top_p);
    cut = true;
  }
  if (draw.min_p > 0) {
    row.scale.least = std::max(row.scale.least, std::log(draw.min_p));
    cut = true;
  }
  if (cut) row.keep();
  return token_at(row, draw.uniform);
}

template int64_t draw_token(const float*, int64_t, double, const Draw&, const Workspace&, CpuLevel);
template int64_t draw_token(const double*, int64_t, double, const Draw&, const Workspace&,
                            CpuLevel);

}  // namespace gptoss
