// Divides work among ONNX Runtime's threads as they come free, each with memory of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>

#include "context.h"

namespace gptoss {

// As many threads as may work at once; a session with more leaves the others idle.
constexpr size_t kMaxWorkers = 128;

inline size_t workers_for(size_t tasks) { return std::min(tasks, kMaxWorkers); }

// Calls body(worker, task) for every task, in the order of tasks; a worker < workers_for(tasks) runs one at a
// time. ONNX Runtime cuts a range into equal parts, and a slow core would keep the others waiting; here whoever
// is free takes the next task.
template <class Body>
void run_tasks(const Context& context, size_t tasks, const Body& body) {
  std::atomic<size_t> next{0};
  context.parallel_for(workers_for(tasks), [&](size_t worker) noexcept {
    for (size_t task = next++; task < tasks; task = next++) body(worker, task);
  });
}

// Rows that make a task, a multiple of `unit`, where memory is what a kernel waits for: `rows` of `row_bytes` bytes in
// all. Such a task is a run through memory, which is slow to start: on a layer of gpt-oss-20b's experts, runs of 300 kB
// read a third faster than runs of 100 kB, and runs of 900 kB a twelfth faster than those. But each core wants several.
inline size_t rows_of_run(size_t rows, size_t row_bytes, size_t unit) {
  constexpr size_t kLeastBytes = 128 << 10, kMostBytes = 900 << 10, kTasksACore = 8;
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const size_t bytes = std::clamp(rows * row_bytes / (kTasksACore * cores), kLeastBytes, kMostBytes);
  return std::max<size_t>(1, bytes / std::max<size_t>(1, unit * row_bytes)) * unit;
}

}  // namespace gptoss
