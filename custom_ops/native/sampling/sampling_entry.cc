// The exported function of sampling; Python calls it through ctypes.
#include <new>

#include "abi/error.h"
#include "abi/gptoss_ops.h"
#include "machine/cpu_features.h"
#include "sampling/sampling.h"

int64_t gptoss_draw_token(const void* scores, int is_float64, int64_t vocab, double top,
                          const GptossDraw* draw, double* weights, uint16_t* bins) {
  const gptoss::Draw settings{draw->temperature, draw->top_k, draw->top_p, draw->min_p,
                              draw->uniform};
  const gptoss::Workspace workspace{weights, bins};
  try {
    const gptoss::CpuLevel level = gptoss::cpu_level();
    if (is_float64 != 0) {
      return gptoss::draw_token(static_cast<const double*>(scores), vocab, top, settings, workspace,
                                level);
    }
    return gptoss::draw_token(static_cast<const float*>(scores), vocab, top, settings, workspace,
                              level);
  } catch (const std::bad_alloc&) {
    return -1;
  } catch (const gptoss::Error&) {  // GPTOSS_CPU_LEVEL; gptoss_ops_error says what
    return -2;
  }
}
