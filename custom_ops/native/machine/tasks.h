// Divides work among ONNX Runtime's threads as they come free, each with memory of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>

#include "abi/context.h"

namespace gptoss {

// As many threads as may work at once; a session with more leaves the others idle.
constexpr size_t kMaxWorkers = 128;

inline size_t workers_for(size_t tasks) { return std::min(tasks, kMaxWorkers); }

// Calls body(worker, task) for every task, in the order of tasks; a worker < workers_for(tasks)
// runs one at a time. ONNX Runtime cuts a range into equal parts, and a slow core would keep the
// others waiting; here whoever is free takes the next task.
template <class Body>
void run_tasks(const Context& context, size_t tasks, const Body& body) {
  std::atomic<size_t> next{0};
  context.parallel_for(workers_for(tasks), [&](size_t worker) noexcept {
    for (size_t task = next++; task < tasks; task = next++) body(worker, task);
  });
}

// Processors of this machine, at least 1; asked once, because the C library opens a file under /sys
// for every answer, which takes longer than starting a call.
inline size_t processors() {
  static const size_t count = std::max(1u, std::thread::hardware_concurrency());
  return count;
}

// Rows to hand out at once, a multiple of `unit`, where memory is what a kernel waits for and
// `rows` of `row_bytes` bytes are left. They are a run through memory, which is slow to start: on a
// layer of gpt-oss-20b's experts, runs of 300 kB read a third faster than runs of 100 kB, and runs
// of 900 kB a twelfth faster than those. But what is left must go round, so that the cores end
// together.
inline size_t rows_of_run(size_t rows, size_t row_bytes, size_t unit, size_t runs_a_core) {
  constexpr size_t kLeastBytes = 128 << 10, kMostBytes = 900 << 10;
  const size_t bytes =
      std::clamp(rows * row_bytes / (runs_a_core * processors()), kLeastBytes, kMostBytes);
  return std::max<size_t>(1, bytes / std::max<size_t>(1, unit * row_bytes)) * unit;
}

// Calls body(begin, end) for runs that together are [0, rows): long ones first, then ever shorter
// ones.
template <class Body>
void run_rows(const Context& context, size_t rows, size_t row_bytes, size_t unit,
              const Body& body) {
  constexpr size_t kRunsACore = 2;  // of what is left
  std::atomic<size_t> next{0};
  context.parallel_for(workers_for(rows / unit + 1), [&](size_t) noexcept {
    size_t begin = next;
    while (begin < rows) {
      const size_t end =
          std::min(rows, begin + rows_of_run(rows - begin, row_bytes, unit, kRunsACore));
      if (!next.compare_exchange_weak(begin, end)) continue;  // which read `begin` anew
      body(begin, end);
      begin = next;
    }
  });
}

}  // namespace gptoss
