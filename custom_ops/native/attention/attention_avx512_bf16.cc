#include "attention/attention_avx512_bf16.h"

namespace gptoss {

void attend_avx512_bf16(const AttentionTask<BFloat16>& task) noexcept {
  attend_tiles<Avx512, Bf16Pairs>(task);
}

}  // namespace gptoss
