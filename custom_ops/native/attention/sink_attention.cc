#include "attention/sink_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "attention/cache_writer.h"
#include "attention/lines.h"
#include "attention/pieces.h"
#include "attention/rotation.h"
#include "machine/tasks.h"

namespace gptoss {
namespace {

constexpr float kMost = std::numeric_limits<float>::max();
// Query rows (tokens × heads of one kv head) that share one packing of the keys; their sums stay in
// the second-level cache.
constexpr int64_t kBlockRows = 256;
// Long caches are split across threads until there are this many pieces, none under this many keys.
constexpr int64_t kEnoughPieces = 64;
constexpr int64_t kLeastPieceKeys = 512;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One call: what was checked, where it writes, and how it is cut into pieces.
template <class T>
class Run {
 public:
  Run(const Context& context, const SinkAttentionAttributes& attributes, AttentionKernel<T> kernel)
      : context_(context),
        attributes_(attributes),
        kernel_(kernel),
        call_(SinkAttentionCall<T>::check(context, attributes)),
        group_(attributes.num_heads / attributes.kv_num_heads),
        width_(padded_width(call_.head_dim)),
        rotation_{call_.head_dim, call_.pairs, attributes.interleaved},
        kept_(attributes.sink_tokens),
        block_tokens_(std::max<int64_t>(1, kBlockRows / group_)),
        output_(context.output<float>(
            0, {call_.batch, call_.columns, attributes.num_heads * call_.head_dim})),
        present_key_(context.output<T>(1, cache_shape())),
        present_value_(context.output<T>(2, cache_shape())) {}

  void run() {
    CacheWriter<T>(context_, attributes_, call_, present_key_, present_value_).write();
    clear_padding();
    cut();
    if (blocks_.empty()) return;
    attend();
    merge();
  }

 private:
  Shape cache_shape() const {
    return {call_.batch, attributes_.kv_num_heads, call_.capacity, call_.head_dim};
  }
  int64_t block_rows() const { return block_tokens_ * group_; }
  int64_t part_size() const { return divide_up(block_rows() * (width_ + 2), kLine) * kLine; }

  Part part_at(float* memory) const {
    float* peaks = memory + block_rows() * width_;
    return {memory, peaks, peaks + block_rows()};
  }

  void clear_padding() {
    const int64_t size = attributes_.num_heads * call_.head_dim;
    for (int64_t row = 0; row < call_.batch; ++row) {
      const int64_t real = call_.new_lengths[row];
      std::fill_n(output_ + (row * call_.columns + real) * size, (call_.columns - real) * size,
                  0.0f);
    }
  }

  void cut() {
    for (int64_t row = 0; row < call_.batch; ++row) {
      const int64_t past = call_.past_lengths[row] - kept_;
      for (int64_t kv_head = 0; kv_head < attributes_.kv_num_heads; ++kv_head) {
        for (int64_t token = 0; token < call_.new_lengths[row]; token += block_tokens_) {
          const int64_t tokens = std::min(block_tokens_, call_.new_lengths[row] - token);
          const int64_t begin =
              attributes_.window > 0 ? std::max<int64_t>(0, past + token - span() + 1) : 0;
          blocks_.push_back(
              {row, kv_head, token, tokens, begin, std::max(begin, past + token + tokens), 1, 0});
        }
      }
    }
    if (blocks_.empty())
      return;  // and no size below is computed, which for empty tensors may be any number
    // The cut depends on the shapes alone: results are the same with any number of threads.
    const int64_t most = std::max<int64_t>(1, kEnoughPieces / static_cast<int64_t>(blocks_.size()));
    for (size_t index = 0; index < blocks_.size(); ++index) {
      Block& block = blocks_[index];
      block.pieces =
          std::clamp<int64_t>(divide_up(block.end - block.begin, kLeastPieceKeys), 1, most);
      block.first_piece = static_cast<int64_t>(piece_blocks_.size());
      piece_blocks_.insert(piece_blocks_.end(), static_cast<size_t>(block.pieces), index);
    }
    if (most > 1) parts_ = new_lines(static_cast<int64_t>(piece_blocks_.size()) * part_size());
  }

  // Pieces differ in length, so each thread takes the next one when it is free, in memory of its
  // own.
  void attend() {
    const size_t pieces = piece_blocks_.size();
    const size_t workers = std::min(pieces, processors());
    const int64_t queries_size = block_rows() * width_;
    const int64_t scratch_size = attention_scratch_size(block_rows(), call_.head_dim);
    const int64_t parts = kept_ > 0 ? 2 : 1;
    const int64_t worker_size = queries_size + parts * part_size() + scratch_size;
    const Lines memory = new_lines(static_cast<int64_t>(workers) * worker_size);
    std::atomic<size_t> next{0};
    context_.parallel_for(workers, [&](size_t worker) noexcept {
      float* queries = memory.get() + static_cast<int64_t>(worker) * worker_size;
      const Part own = part_at(queries + queries_size);
      const Part other = part_at(queries + queries_size + (parts - 1) * part_size());
      float* scratch = queries + queries_size + parts * part_size();
      for (size_t piece = next++; piece < pieces; piece = next++) {
        const Block& block = blocks_[piece_blocks_[piece]];
        const bool whole = block.pieces == 1;
        const Part part =
            whole ? own : part_at(parts_.get() + static_cast<int64_t>(piece) * part_size());
        const int64_t number = static_cast<int64_t>(piece) - block.first_piece;
        attend_piece(block, number, part, queries, scratch);
        if (kept_ > 0 && number == 0) {
          attend_kept(block, other, queries, scratch);
          add_part(block.tokens * group_, other, part);
        }
        if (whole) write_output(block, part.sums, part.peaks, part.totals);
      }
    });
  }

  // A stretch of the ring, which holds all positions but the kept ones.
  void attend_piece(const Block& block, int64_t piece, const Part& part, float* queries,
                    float* scratch) noexcept {
    const int64_t rows = block.tokens * group_;
    rotate_queries(block, call_.angles, queries);
    for (int64_t r = 0; r < rows; ++r) part.peaks[r] = std::max(sink_of(head_of(block, r)), -kMost);
    const int64_t length = divide_up(block.end - block.begin, block.pieces);
    const int64_t begin = std::min(block.end, block.begin + piece * length);
    const int64_t ring = cache_of(block) + kept_ * call_.head_dim;
    kernel_({present_key_ + ring, present_value_ + ring, call_.capacity - kept_, call_.head_dim,
             queries, rows, group_, call_.past_lengths[block.row] - kept_ + block.token, span(),
             begin, std::min(block.end, begin + length),
             bias_of(block, std::numeric_limits<int64_t>::max()), part.sums, part.peaks,
             part.totals, scratch});
  }

  // The kept tokens, which queries see from the end of a full window at most.
  void attend_kept(const Block& block, const Part& part, float* queries, float* scratch) noexcept {
    const int64_t rows = block.tokens * group_, first = call_.past_lengths[block.row] + block.token;
    rotate_queries(block, call_.sink_angles, queries);
    std::fill_n(part.peaks, rows, -kMost);
    const int64_t cache = cache_of(block);
    kernel_({present_key_ + cache, present_value_ + cache, call_.capacity, call_.head_dim, queries,
             rows, group_, first, 0, 0, std::min(kept_, first + block.tokens),
             bias_of(block, attributes_.window - 1), part.sums, part.peaks, part.totals, scratch});
    // All scores gain the same, so that the weights relative to the largest stay.
    for (int64_t r = 0; r < rows; ++r) part.peaks[r] += in_powers_of_two(attributes_.sink_bias);
  }

  void rotate_queries(const Block& block, const Angles& angles, float* queries) noexcept {
    const float factor = attributes_.scale * kLog2E;
    for (int64_t r = 0; r < block.tokens * group_; ++r) {
      const int64_t column = column_of(block, r);
      const float* query =
          call_.query + (column * attributes_.num_heads + head_of(block, r)) * call_.head_dim;
      const int64_t offset = column * call_.pairs;
      float* out = queries + r * width_;
      rotate(rotation_, query, angles.cos + offset, angles.sin + offset,
             [=](int64_t i, float x) { out[i] = factor * x; });
      std::fill(out + call_.head_dim, out + width_, 0.0f);
    }
  }

  // Row r of a block is one head of one token.
  int64_t column_of(const Block& block, int64_t r) const {
    return block.row * call_.columns + block.token + r / group_;
  }
  int64_t head_of(const Block& block, int64_t r) const {
    return block.kv_head * group_ + r % group_;
  }

  int64_t cache_of(const Block& block) const {
    return (block.row * attributes_.kv_num_heads + block.kv_head) * call_.capacity * call_.head_dim;
  }

  // Keys of the ring that a query sees; 0 means all.
  int64_t span() const { return attributes_.window > 0 ? attributes_.window - kept_ : 0; }

  DistanceBias bias_of(const Block& block, int64_t farthest) const {
    const int64_t head = block.kv_head * group_;
    const float* slopes = call_.alibi_slopes;
    const float* table = call_.distance_bias;
    return {slopes ? slopes + head : nullptr, table ? table + head * call_.distances : nullptr,
            call_.distances, farthest};
  }

  // Brings the pieces of each split block to one peak and adds them up.
  void merge() {
    for (const Block& block : blocks_) {
      if (block.pieces == 1) continue;
      const Part first = part_at(parts_.get() + block.first_piece * part_size());
      for (int64_t piece = 1; piece < block.pieces; ++piece) {
        add_part(block.tokens * group_,
                 part_at(parts_.get() + (block.first_piece + piece) * part_size()), first);
      }
      write_output(block, first.sums, first.peaks, first.totals);
    }
  }

  void add_part(int64_t rows, const Part& other, const Part& sum) const {
    for (int64_t r = 0; r < rows; ++r) {
      const float peak = std::max(sum.peaks[r], other.peaks[r]);
      const float ours = std::exp2(sum.peaks[r] - peak), theirs = std::exp2(other.peaks[r] - peak);
      for (int64_t d = 0; d < width_; ++d) {
        float& x = sum.sums[r * width_ + d];
        x = ours * x + theirs * other.sums[r * width_ + d];
      }
      sum.totals[r] = ours * sum.totals[r] + theirs * other.totals[r];
      sum.peaks[r] = peak;
    }
  }

  // Divides by the sum of all weights, the sink's included. If that is 0, the row saw no key and
  // has no sink: its sums are zeros, and stay so.
  void write_output(const Block& block, const float* sums, const float* peaks,
                    const float* totals) noexcept {
    for (int64_t r = 0; r < block.tokens * group_; ++r) {
      const int64_t head = head_of(block, r);
      float* out = output_ + (column_of(block, r) * attributes_.num_heads + head) * call_.head_dim;
      const float weights = totals[r] + std::exp2(sink_of(head) - peaks[r]);
      const float total = weights == 0.0f ? 1.0f : weights;
      for (int64_t d = 0; d < call_.head_dim; ++d) out[d] = sums[r * width_ + d] / total;
    }
  }

  // A head's sink in units of log2(e); without sinks, one that weighs nothing.
  float sink_of(int64_t head) const noexcept {
    return call_.sinks == nullptr ? -std::numeric_limits<float>::infinity()
                                  : in_powers_of_two(call_.sinks[head]);
  }

  // A finite number stays finite, or it would be infinity less infinity later on.
  static float in_powers_of_two(float x) noexcept {
    const float scaled = x * kLog2E;
    return std::isinf(scaled) && !std::isinf(x) ? std::copysign(kMost, x) : scaled;
  }

  const Context& context_;
  const SinkAttentionAttributes& attributes_;
  const AttentionKernel<T> kernel_;
  const SinkAttentionCall<T> call_;
  const int64_t group_;  // H / K
  const int64_t width_;  // W
  const Rotation rotation_;
  const int64_t kept_;          // first tokens that stay, before the ring
  const int64_t block_tokens_;  // most tokens of a block
  float* const output_;
  T* const present_key_;
  T* const present_value_;
  std::vector<Block> blocks_;
  std::vector<size_t> piece_blocks_;  // the block of each piece
  Lines parts_;                       // where blocks are split: a Part for each piece
};

}  // namespace

template <class T>
SinkAttention<T>::SinkAttention(const OrtApi& api, const OrtKernelInfo& info,
                                Activations activations)
    : attributes_(SinkAttentionAttributes::read(api, info)),
      kernel_(attention_kernel<T>(cpu_level(), activations != Activations::exact)) {}

template <class T>
void SinkAttention<T>::compute(const Context& context) const {
  Run<T>(context, attributes_, kernel_).run();
}

template class SinkAttention<float>;
template class SinkAttention<Float16>;
template class SinkAttention<BFloat16>;

}  // namespace gptoss
