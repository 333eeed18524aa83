#include "linear/linear_transposed.h"

#include <algorithm>
#include <cstring>

#include "machine/aligned_bytes.h"
#include "machine/tasks.h"

namespace gptoss {
namespace {

size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

constexpr size_t kSlice = 1024;  // outputs whose sums a task adds up

// Rows of a run: long ones, since each has sums of its own, but some for every core.
size_t rows_a_run(size_t depth, size_t row_bytes) {
  constexpr size_t kUnit = 8, kRunsACore = 6, kLeastBytes = 128 << 10;
  const size_t share = ceil_div(depth, kRunsACore * processors());
  return ceil_div(std::max(share, ceil_div(kLeastBytes, row_bytes)), kUnit) * kUnit;
}

// The bias may be an initializer that lies anywhere in a mapped file, where no float pointer may be
// followed.
float bias_at(const float* bias, size_t index) {
  if (bias == nullptr) return 0;
  float value;
  std::memcpy(&value, reinterpret_cast<const std::byte*>(bias) + index * sizeof value,
              sizeof value);
  return value;
}

}  // namespace

void LinearTransposed::compute(const Context& context, const LinearCall& call) const {
  if (call.tokens == 0 || call.rows == 0) return;
  LinearCall rounded = call;
  AlignedBytes memory;
  if (activations_ != Activations::exact) {
    memory = AlignedBytes(call.tokens * call.depth * sizeof(float));
    auto* x = reinterpret_cast<float*>(memory.data());
    context.parallel_for(call.tokens, [&](size_t n) noexcept {
      round_activations(activations_, call.x + n * call.depth, call.depth, x + n * call.depth);
    });
    rounded.x = x;
  }
  if (call.tokens <= kFewColumnTokens) return multiply_by_rows(context, rounded);
  multiply_by_columns(context, rounded);
}

WeightColumns LinearTransposed::columns(const LinearCall& call, size_t first, size_t count) const {
  const auto* weight = reinterpret_cast<const std::byte*>(call.weight);
  return {weight + first * bytes_of(type_), call.row_bytes, count, call.depth};
}

// Few tokens: a task multiplies a run of the weight's rows, at the speed of memory, and has sums of
// its own; then a task adds up some of the sums. The runs and the order of the sums do not depend
// on the number of threads.
void LinearTransposed::multiply_by_rows(const Context& context, const LinearCall& call) const {
  const size_t run = rows_a_run(call.depth, call.row_bytes);
  const size_t runs = std::max<size_t>(1, ceil_div(call.depth, run));
  const size_t values = call.tokens * call.rows;
  AlignedBytes memory(runs * values * sizeof(float));
  auto* sums = reinterpret_cast<float*>(memory.data());
  run_tasks(context, runs, [&](size_t, size_t task) noexcept {
    const size_t begin = task * run;
    WeightColumns some = columns(call, 0, call.rows);
    some.first += begin * call.row_bytes;
    some.width = std::min(run, call.depth - begin);
    multiply_(some, {call.x + begin, call.depth, call.tokens}, sums + task * values, call.rows);
  });
  const size_t slices = ceil_div(call.rows, kSlice);
  run_tasks(context, call.tokens * slices, [&](size_t, size_t task) noexcept {
    const size_t first = task % slices * kSlice, end = std::min(first + kSlice, call.rows);
    const size_t token = task / slices * call.rows;
    for (size_t m = first; m < end; ++m) call.y[token + m] = bias_at(call.bias, m);
    for (size_t part = 0; part < runs; ++part) {
      for (size_t m = first; m < end; ++m) call.y[token + m] += sums[part * values + token + m];
    }
  });
}

// Many tokens: a task is a slice of the columns.
void LinearTransposed::multiply_by_columns(const Context& context, const LinearCall& call) const {
  constexpr size_t kColumns = 64;
  run_tasks(context, ceil_div(call.rows, kColumns), [&](size_t, size_t task) noexcept {
    const size_t first = task * kColumns, count = std::min(kColumns, call.rows - first);
    float* y = call.y + first;
    multiply_(columns(call, first, count), {call.x, call.depth, call.tokens}, y, call.rows);
    for (size_t n = 0; n < call.tokens; ++n) {
      for (size_t m = 0; m < count; ++m) y[n * call.rows + m] += bias_at(call.bias, first + m);
    }
  });
}

}  // namespace gptoss
