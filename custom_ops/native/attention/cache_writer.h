// Writes the new keys and values of a call into the cache; custom_ops/cache_slots.py says which
// slot is whose.
#pragma once

#include <cstdint>
#include <cstring>

#include "abi/context.h"
#include "attention/attention_half.h"
#include "attention/rotation.h"
#include "attention/sink_attention.h"

namespace gptoss {

template <class T>
class CacheWriter {
 public:
  CacheWriter(const Context& context, const SinkAttentionAttributes& attributes,
              const SinkAttentionCall<T>& call, T* present_key, T* present_value)
      : context_(context),
        call_(call),
        rotation_{call.head_dim, call.pairs, attributes.interleaved},
        kv_heads_(attributes.kv_num_heads),
        kept_(attributes.sink_tokens),
        present_key_(present_key),
        present_value_(present_value) {}

  void write() {
    const int64_t heads = call_.batch * kv_heads_;
    const bool copies = call_.past_key != present_key_ || call_.past_value != present_value_;
    constexpr int64_t kWorthThreads = 16384;  // numbers; fewer are written sooner than threads wake
    if (copies || heads * call_.columns * call_.head_dim >= kWorthThreads) {
      context_.parallel_for(static_cast<size_t>(heads), [this](size_t head) noexcept {
        write_head(static_cast<int64_t>(head));
      });
    } else {
      for (int64_t head = 0; head < heads; ++head) write_head(head);
    }
  }

 private:
  // The cache of one row and kv head: what was there, then the new tokens. Padding is not written.
  void write_head(int64_t head) noexcept {
    const int64_t row = head / kv_heads_, kv_head = head % kv_heads_;
    const int64_t size = call_.capacity * call_.head_dim;
    if (size == 0) return;
    T* keys = present_key_ + head * size;
    T* values = present_value_ + head * size;
    if (call_.past_key != present_key_)
      std::memcpy(keys, call_.past_key + head * size, size * sizeof(T));
    if (call_.past_value != present_value_)
      std::memcpy(values, call_.past_value + head * size, size * sizeof(T));
    for (int64_t token = 0; token < call_.new_lengths[row]; ++token) {
      const int64_t column = row * call_.columns + token;
      const int64_t source = (column * kv_heads_ + kv_head) * call_.head_dim;
      const int64_t slot = slot_of(call_.past_lengths[row] + token) * call_.head_dim;
      const int64_t offset = column * call_.pairs;
      rotate(rotation_, call_.key + source, call_.angles.cos + offset, call_.angles.sin + offset,
             [=](int64_t i, float x) { narrow(x, keys[slot + i]); });
      for (int64_t i = 0; i < call_.head_dim; ++i)
        narrow(call_.value[source + i], values[slot + i]);
    }
  }

  // The first tokens stay where they are, the others go round behind them.
  int64_t slot_of(int64_t position) const noexcept {
    return position < kept_ ? position : kept_ + (position - kept_) % (call_.capacity - kept_);
  }

  const Context& context_;
  const SinkAttentionCall<T>& call_;
  const Rotation rotation_;
  const int64_t kv_heads_;
  const int64_t kept_;
  T* const present_key_;
  T* const present_value_;
};

}  // namespace gptoss
