// What the machine can do: read bandwidth and arithmetic peaks, measured beside each benchmark.
// machine.py compiles this for the machine it runs on (-march=native) and calls it through ctypes.
// Each function runs `threads` threads, started together, and returns the seconds from the first start to the
// last end, or a negative number where the machine lacks the instruction.
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs body(thread) on every thread after all have arrived.
template <class Body>
double timed(int threads, const Body& body) {
  std::atomic<int> arrived{0};
  std::vector<double> starts(threads), ends(threads);
  const auto run = [&](int thread) {
    ++arrived;
    while (arrived < threads) {
    }
    starts[thread] = now();
    body(thread);
    ends[thread] = now();
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(ends.begin(), ends.end()) - *std::min_element(starts.begin(), starts.end());
}

std::atomic<uint64_t> sink;  // results end here, so that no loop is dropped

#if defined(__AVX512F__)
using Word = __m512i;
Word load(const unsigned char* p) { return _mm512_loadu_si512(p); }
#else
using Word = __m256i;
Word load(const unsigned char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
#endif

void read_all(const unsigned char* bytes, size_t count) {
  constexpr size_t kStep = 4 * sizeof(Word);
  Word a{}, b{}, c{}, d{};
  size_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    a |= load(bytes + i);
    b |= load(bytes + i + sizeof(Word));
    c |= load(bytes + i + 2 * sizeof(Word));
    d |= load(bytes + i + 3 * sizeof(Word));
  }
  const Word all = a | b | c | d;
  uint64_t rest = static_cast<uint64_t>(all[0]) | static_cast<uint64_t>(all[1]);
  for (; i < count; ++i) rest |= bytes[i];
  sink |= rest;
}

// Runs ten chains of instructions that do not wait for each other. Spelled out: an array of sums would live
// in memory, and its loads and stores would be what is measured.
template <class Vector, class Step>
void chains(Vector zero, uint64_t steps, const Step& step) {
  Vector a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero, i = zero, j = zero;
  for (uint64_t done = 0; done < steps; ++done) {
    a = step(a), b = step(b), c = step(c), d = step(d), e = step(e);
    f = step(f), g = step(g), h = step(h), i = step(i), j = step(j);
    asm volatile("" ::"v"(a), "v"(b), "v"(c), "v"(d), "v"(e), "v"(f), "v"(g), "v"(h), "v"(i), "v"(j));
  }
  sink |= static_cast<uint64_t>((a + b + c + d + e + f + g + h + i + j)[0]);
}

}  // namespace

extern "C" {

// Reads `count` bytes once, each thread its own contiguous part.
double machine_read(const unsigned char* bytes, size_t count, int threads) {
  const size_t part = count / threads;
  return timed(threads, [&](int thread) {
    const size_t begin = part * thread;
    read_all(bytes + begin, thread + 1 == threads ? count - begin : part);
  });
}

// 10 · steps fused multiply-adds of float32 vectors per thread; *lanes is the vector's width.
double machine_fma(uint64_t steps, int threads, int* lanes) {
#if defined(__AVX512F__)
  *lanes = 16;
  const __m512 x = _mm512_set1_ps(0.5f);
  return timed(threads, [&](int) {
    chains(_mm512_setzero_ps(), steps, [&](__m512 sum) { return _mm512_fmadd_ps(sum, x, x); });
  });
#elif defined(__FMA__)
  *lanes = 8;
  const __m256 x = _mm256_set1_ps(0.5f);
  return timed(threads, [&](int) {
    chains(_mm256_setzero_ps(), steps, [&](__m256 sum) { return _mm256_fmadd_ps(sum, x, x); });
  });
#else
  return *lanes = 0, -1;
#endif
}

// The same with dot products of bfloat16 pairs: *lanes multiply-adds per instruction.
double machine_bf16([[maybe_unused]] uint64_t steps, [[maybe_unused]] int threads, int* lanes) {
#if defined(__AVX512BF16__)
  *lanes = 32;
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
  return timed(threads, [&](int) {
    chains(_mm512_setzero_ps(), steps, [&](__m512 sum) { return _mm512_dpbf16_ps(sum, x, x); });
  });
#else
  return *lanes = 0, -1;
#endif
}

// The same with dot products of four bytes: *lanes multiply-adds per instruction.
double machine_int8([[maybe_unused]] uint64_t steps, [[maybe_unused]] int threads, int* lanes) {
#if defined(__AVX512VNNI__)
  *lanes = 64;
  const __m512i x = _mm512_set1_epi8(3);
  return timed(threads, [&](int) {
    chains(_mm512_setzero_si512(), steps, [&](__m512i sum) { return _mm512_dpbusd_epi32(sum, x, x); });
  });
#else
  return *lanes = 0, -1;
#endif
}

}  // extern "C"
