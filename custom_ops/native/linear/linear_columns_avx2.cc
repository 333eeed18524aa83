// Weights by columns with AVX2, FMA and F16C.
#include "linear/linear_columns_tiles.h"
#include "machine/vectors_avx2.h"

namespace gptoss {
namespace {

struct Avx2 : Floats8 {
  static constexpr size_t kTokens = 4, kVectors = 2;  // 8 sums, 2 weights and a value
};

}  // namespace

MultiplyColumns columns_avx2(WeightType type) { return columns_of<Avx2>(type); }

}  // namespace gptoss
