// The exported functions that measure the machine: threads that start together, and the loops they
// run.
//
// They take the best instructions that the CPU has, whatever GPTOSS_CPU_LEVEL says: a lowered level
// does not lower what the machine can do.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "machine/cpu_features.h"
#include "abi/gptoss_ops.h"
#include "machine/machine_loops.h"

namespace gptoss {
namespace {

constexpr size_t kLeastPiece = 64 << 10, kMostPiece = 4 << 20;  // bytes a thread takes at a time
constexpr double kFailed = -1;

std::atomic<uint64_t> sink;  // results end here, so that no loop is dropped

CpuLevel best_level() {
  static const CpuLevel level = detect_cpu_level();
  return level;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs `body` on every thread after all have arrived; returns the seconds from the first start to
// the last end, or kFailed where the system does not give that many threads.
template <class Body>
double timed(int threads, const Body& body) {
  std::atomic<int> arrived{0};
  std::vector<double> starts(threads), ends(threads);
  const auto run = [&](int thread) {
    ++arrived;
    while (arrived < threads) {
    }
    starts[thread] = now();
    body();
    ends[thread] = now();
  };
  std::vector<std::thread> others;
  bool complete = true;
  try {
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  } catch (const std::system_error&) {
    complete = false;
    arrived = threads;  // lets go those that wait
  }
  if (complete) run(0);
  for (std::thread& other : others) other.join();
  if (!complete) return kFailed;
  return *std::max_element(ends.begin(), ends.end()) -
         *std::min_element(starts.begin(), starts.end());
}

ReadLoop read_loop() {
#if defined(__x86_64__)
  if (best_level() >= CpuLevel::avx512) return read_avx512;
  if (best_level() >= CpuLevel::avx2) return read_avx2;
#endif
  return read_scalar;
}

ComputeLoop compute_loop([[maybe_unused]] std::string_view unit) {
#if defined(__x86_64__)
  const CpuLevel level = best_level();
  if (unit == "fma" && level >= CpuLevel::avx512) return compute_fma_avx512();
  if (unit == "fma" && level >= CpuLevel::avx2) return compute_fma_avx2();
  if (unit == "int8" && level >= CpuLevel::avx512_vnni) return compute_int8_avx512_vnni();
  if (unit == "int8" && level == CpuLevel::avx2) return compute_int8_avx2();
  if (unit == "int16" && level >= CpuLevel::avx512_vnni) return compute_int16_avx512_vnni();
  if (unit == "int16" && level == CpuLevel::avx2) return compute_int16_avx2();
  if (unit == "bf16" && level >= CpuLevel::avx512_bf16) return compute_bf16_avx512();
  if (unit == "amx_bf16" && level >= CpuLevel::amx) return compute_bf16_amx();
  if (unit == "amx_int8" && level >= CpuLevel::amx && __builtin_cpu_supports("amx-int8"))
    return compute_int8_amx();
#endif
  return {};
}

}  // namespace

uint64_t read_scalar(const unsigned char* bytes, size_t count) noexcept {
  using Word = uint64_t
      __attribute__((vector_size(16), aligned(1), may_alias));  // every 64-bit CPU has these
  return read_streams<Word>(bytes, count);
}

}  // namespace gptoss

double gptoss_machine_read(const void* bytes, size_t count, int threads) {
  using namespace gptoss;
  if (threads < 1) return kFailed;
  const ReadLoop read = read_loop();
  const auto* start = static_cast<const unsigned char*>(bytes);
  const size_t piece =
      std::clamp(count / (8 * static_cast<size_t>(threads)), kLeastPiece, kMostPiece);
  std::atomic<size_t> next{
      0};  // whoever is free takes the next piece: one disturbed thread holds nobody up
  return timed(threads, [&] {
    for (size_t begin = next.fetch_add(piece); begin < count; begin = next.fetch_add(piece)) {
      sink |= read(start + begin, std::min(piece, count - begin));
    }
  });
}

double gptoss_machine_compute(const char* unit, int threads) {
  using namespace gptoss;
  if (threads < 1) return kFailed;
  const ComputeLoop loop = compute_loop(unit);
  if (loop.run == nullptr) return 0;
  const double seconds = timed(threads, [&] { sink |= loop.run(loop.steps); });
  return seconds < 0 ? kFailed
                     : static_cast<double>(loop.operations * loop.steps) * threads / seconds;
}
