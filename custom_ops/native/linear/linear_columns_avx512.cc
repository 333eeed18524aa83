// Weights by columns with AVX-512.
#include "linear/linear_columns_tiles.h"
#include "machine/vectors_avx512.h"

namespace gptoss {
namespace {

struct Avx512 : Floats16 {
  static constexpr size_t kTokens = 6, kVectors = 4;  // 24 sums, 4 weights and a value
};

}  // namespace

MultiplyColumns columns_avx512(WeightType type) { return columns_of<Avx512>(type); }

}  // namespace gptoss
