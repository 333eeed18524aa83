#include "linear/linear_packed.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "machine/bfloat16.h"

namespace gptoss {
namespace {

enum { kX, kLow, kHigh, kBases, kPositions, kValues, kBias };

struct Position {
  int32_t row, column;
};

Position position(const PackedWeight& packed, size_t index) noexcept {
  Position found;
  std::memcpy(&found, packed.positions + index * sizeof found, sizeof found);  // at any address
  return found;
}

uint16_t value_bits(const PackedWeight& packed, size_t index) noexcept {
  uint16_t bits;
  std::memcpy(&bits, packed.values + index * sizeof bits, sizeof bits);
  return bits;
}

float value(const PackedWeight& packed, size_t index) noexcept {
  const uint32_t bits = uint32_t{value_bits(packed, index)} << 16;
  float found;
  std::memcpy(&found, &bits, sizeof found);
  return found;
}

// The first exception of `row` or a later one.
size_t first_exception(const PackedWeight& packed, size_t row) noexcept {
  size_t low = 0, high = packed.exceptions;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (static_cast<size_t>(position(packed, middle).row) < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Adds what the exceptions of rows [begin, end) contribute, after the rest of each sum.
void add_exceptions(const LinearCall& call, size_t begin, size_t end) noexcept {
  const PackedWeight& packed = *call.packed;
  const bool rounded = packed.activations != Activations::exact;
  for (size_t i = first_exception(packed, begin); i < packed.exceptions; ++i) {
    const Position at = position(packed, i);
    if (static_cast<size_t>(at.row) >= end) return;
    const float weight = value(packed, i);
    for (size_t n = 0; n < call.tokens; ++n) {
      const float exact = packed.tokens[n * call.depth + at.column];
      const float token = rounded ? round_to_bf16(exact) : exact;
      call.y[n * call.rows + at.row] += weight * token;
    }
  }
}

void few_tokens(const LinearCall& call, size_t begin, size_t end) noexcept {
  call.packed->kernels.matrix_vector(call, begin, end);
  add_exceptions(call, begin, end);
}

// Rows [begin, end) as the bfloat16 that they stand for, one after the other.
void unpack_rows(const LinearCall& call, size_t begin, size_t end, uint16_t* out) noexcept {
  const PackedWeight& packed = *call.packed;
  for (size_t m = begin; m < end; ++m) {
    packed.kernels.unpack_row(call.weight + m * call.depth, packed.high + m * (call.depth / 2),
                              packed.bases[m], call.depth, out + (m - begin) * call.depth);
  }
  for (size_t i = first_exception(packed, begin); i < packed.exceptions; ++i) {
    const Position at = position(packed, i);
    if (static_cast<size_t>(at.row) >= end) return;
    out[(at.row - begin) * call.depth + at.column] |= value_bits(packed, i);
  }
}

// One block of rows becomes what Linear's weights are, and then Linear multiplies.
void many_tokens(const LinearCall& call, const TokenTiles& tiles, size_t begin, size_t end,
                 float* panel) noexcept {
  static thread_local std::vector<uint16_t> block;
  block.resize(kBlockRows * call.depth);
  unpack_rows(call, begin, end, block.data());
  LinearCall stored = call;
  stored.row_bytes = call.depth * sizeof(uint16_t);
  // Kernels ask for rows by their numbers in the matrix, of which the block holds these.
  const auto address = reinterpret_cast<uintptr_t>(block.data()) - begin * stored.row_bytes;
  stored.weight = reinterpret_cast<const unsigned char*>(address);
  call.packed->stored_product(stored, tiles, begin, end, panel);
}

PackedKernels kernels_of(CpuLevel level, bool rounded) {
#if defined(__x86_64__)
  if (level >= CpuLevel::avx512_bf16 && rounded) return linear_packed_avx512_bf16();
  if (level >= CpuLevel::avx512) return linear_packed_avx512(rounded);
  if (level >= CpuLevel::avx2) return linear_packed_avx2(rounded);
#endif
  static_cast<void>(level), static_cast<void>(rounded);  // elsewhere there is one level
  return linear_packed_scalar();
}

LinearKernels product_kernels(CpuLevel level, bool rounded) {
  LinearKernels kernels = linear_kernels(level, WeightType::bfloat16, rounded);
  const PackedKernels packed = kernels_of(level, rounded);
  kernels.matrix_vector = few_tokens;
  kernels.vector_format = packed.vector_format;
  kernels.packing = packed.packing;
  if (kernels.blocked_product != nullptr) kernels.blocked_product = many_tokens;
  return kernels;
}

// 8 bits would be no faster on weights of 12.
Activations no_less_than_bf16(Activations activations) {
  return activations == Activations::exact ? Activations::exact : Activations::bf16;
}

void expect(const Context& context, size_t input, const Shape& expected) {
  const Shape found = context.shape(input);
  if (found != expected) context.reject(input, "shape " + describe(found), describe(expected));
}

// A kernel that trusted these would read and write anywhere. Rows ascend, so the last one bounds
// them all; what is negative is too large without a sign.
void check_positions(const Context& context, const PackedWeight& packed, size_t rows,
                     size_t depth) {
  bool holds = true;
  uint64_t before = 0;
  for (size_t i = 0; i < packed.exceptions; ++i) {
    const Position at = position(packed, i);
    const uint64_t now =
        uint64_t{static_cast<uint32_t>(at.row)} << 32 | static_cast<uint32_t>(at.column);
    holds &= static_cast<size_t>(at.column) < depth;
    holds &= now > before || i == 0;
    before = now;
  }
  if (packed.exceptions > 0)
    holds &= static_cast<size_t>(position(packed, packed.exceptions - 1).row) < rows;
  if (holds) return;
  const auto size = Shape{static_cast<int64_t>(rows), static_cast<int64_t>(depth)};
  context.reject(kPositions, "other ones",
                 "ascending rows and columns within a weight of " + describe(size));
}

void check_bases(const Context& context, const unsigned char* bases, size_t rows) {
  unsigned char largest = 0;
  for (size_t m = 0; m < rows; ++m) largest = std::max(largest, bases[m]);
  if (largest <= kLargestBase) return;
  context.reject(kBases, std::to_string(largest), "at most " + std::to_string(kLargestBase));
}

}  // namespace

LinearPacked::LinearPacked(const OrtApi&, const OrtKernelInfo&, Activations activations)
    : activations_(no_less_than_bf16(activations)),
      kernels_(kernels_of(cpu_level(), activations_ != Activations::exact)),
      stored_product_(
          linear_kernels(cpu_level(), WeightType::bfloat16, activations_ != Activations::exact)
              .blocked_product),
      product_(product_kernels(cpu_level(), activations_ != Activations::exact), activations_) {}

void LinearPacked::compute(const Context& context) const {
  const auto [tokens, depth, rows] = check_linear_shapes(context, kX, kLow, kBias);
  if (depth % kPackedBlock != 0) {
    context.reject(kX, "shape " + describe(context.shape(kX)),
                   "(N, K) with K a multiple of " + std::to_string(kPackedBlock));
  }
  const int64_t height = static_cast<int64_t>(rows), half = static_cast<int64_t>(depth / 2);
  expect(context, kHigh, {height, half});
  expect(context, kBases, {height});
  const Shape positions = context.shape(kPositions);
  if (positions.size() != 2 || positions[1] != 2)
    context.reject(kPositions, "shape " + describe(positions), "(X, 2)");
  expect(context, kValues, {positions[0]});

  PackedWeight packed{};
  packed.high = context.data<unsigned char>(kHigh);
  packed.bases = context.data<unsigned char>(kBases);
  packed.positions = context.data<unsigned char>(kPositions);
  packed.values = context.data<unsigned char>(kValues);
  packed.exceptions = static_cast<size_t>(positions[0]);
  packed.tokens = context.data<float>(kX);
  packed.activations = activations_;
  packed.kernels = kernels_;
  packed.stored_product = stored_product_;
  check_positions(context, packed, rows, depth);
  check_bases(context, packed.bases, rows);

  LinearCall call{};
  call.x = packed.tokens;
  call.weight = context.data<unsigned char>(kLow);
  call.bias = context.data<float>(kBias);
  call.y = context.output<float>(0, {static_cast<int64_t>(tokens), height});
  call.tokens = tokens;
  call.depth = call.lanes = depth;
  call.rows = rows;
  call.row_bytes = depth + depth / 2;
  call.packed = &packed;
  product_.compute(context, call);
}

}  // namespace gptoss
