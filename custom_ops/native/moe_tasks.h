// Divides work among ONNX Runtime's threads as they come free, each with memory of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

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

}  // namespace gptoss
