#include "attention/attention_avx512.h"

namespace gptoss {

template <class T>
void attend_avx512(const AttentionTask<T>& task) noexcept {
  attend_tiles<Avx512, Widened<Avx512, T>>(task);
}

template <>
void attend_avx512(const AttentionTask<BFloat16>& task) noexcept {
  attend_tiles<Avx512, WidenedPairs<Avx512>>(task);
}

template void attend_avx512(const AttentionTask<float>&) noexcept;
template void attend_avx512(const AttentionTask<Float16>&) noexcept;

}  // namespace gptoss
