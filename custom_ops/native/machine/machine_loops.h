// What the machine can do at most: loops that read memory, and loops of products that do not wait
// for each other.
//
// A loop returns a value that everything it did went into, so that no compiler drops it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gptoss {

using ReadLoop = uint64_t (*)(const unsigned char* bytes, size_t count) noexcept;

// One kind of instruction; `run` is null if this machine lacks it. A step is `operations`
// multiplications and additions.
struct ComputeLoop {
  uint64_t (*run)(uint64_t steps) noexcept;
  uint64_t operations, steps;  // enough steps for some ten milliseconds
};

uint64_t read_scalar(const unsigned char* bytes, size_t count) noexcept;
#if defined(__x86_64__)
uint64_t read_avx2(const unsigned char* bytes, size_t count) noexcept;
uint64_t read_avx512(const unsigned char* bytes, size_t count) noexcept;
ComputeLoop compute_fma_avx2();
ComputeLoop compute_int8_avx2();   // pairs of bytes, added in 16 bits
ComputeLoop compute_int16_avx2();  // pairs of words, added in 32 bits
ComputeLoop compute_fma_avx512();
ComputeLoop compute_int8_avx512_vnni();   // dot products of four bytes
ComputeLoop compute_int16_avx512_vnni();  // and of two words
ComputeLoop compute_bf16_avx512();        // dot products of two bfloat16
ComputeLoop compute_bf16_amx();
ComputeLoop compute_int8_amx();  // asks for more than CpuLevel::amx: the CPU feature amx-int8
#endif

namespace {

// The hardware prefetches within a page of 4 KiB and learns anew in the next, so one stream of
// plain loads waits at the start of every page. Several streams, each line asked for well before
// its load and across the page's end, do not: half as fast again and more, on anonymous and on
// mapped memory. Twelve, because they divide no power of two: streams a power of two apart would
// meet in the same few sets of the caches. More of them, longer turns or a longer way ahead gain
// nothing.
constexpr size_t kStreams = 12;
constexpr size_t kLine = 64;
constexpr size_t kAhead = 512;

// Reads every byte once. `Word` is a vector type of the level's width that may lie anywhere.
template <class Word>
uint64_t read_streams(const unsigned char* bytes, size_t count) noexcept {
  constexpr size_t kWords = kLine / sizeof(Word);
  const size_t part = count / kStreams / kLine * kLine;
  Word sums[kWords] = {};
  for (size_t i = 0; i < part; i += kLine) {
#pragma GCC unroll 12
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const unsigned char* line = bytes + stream * part + i;
      __builtin_prefetch(line + kAhead);
#pragma GCC unroll 4
      for (size_t word = 0; word < kWords; ++word)
        sums[word] |= reinterpret_cast<const Word*>(line)[word];
    }
  }
  uint64_t all = 0;
  for (const Word& sum : sums) {
    for (size_t lane = 0; lane < sizeof(Word) / sizeof(uint64_t); ++lane) all |= sum[lane];
  }
  for (size_t i = kStreams * part; i < count; ++i) all |= bytes[i];
  return all;
}

constexpr uint64_t kChains = 12;
constexpr uint64_t kChainSteps = 4'000'000;

#if defined(__x86_64__)
// Twelve chains of instructions, more than any processor has under way at once. Spelled out: an
// array of sums would live in memory, and its loads and stores would be what is measured. The empty
// assembly may change every sum, for all that the compiler knows: else it sees twelve equal chains,
// runs one, and what is measured is how long an instruction takes.
template <class Vector, class Step>
uint64_t chains(Vector zero, uint64_t steps, const Step& step) noexcept {
  Vector a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero, i = zero,
         j = zero, k = zero, l = zero;
  for (uint64_t done = 0; done < steps; ++done) {
    a = step(a), b = step(b), c = step(c), d = step(d), e = step(e), f = step(f);
    g = step(g), h = step(h), i = step(i), j = step(j), k = step(k), l = step(l);
    __asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f));
    __asm__ volatile("" : "+v"(g), "+v"(h), "+v"(i), "+v"(j), "+v"(k), "+v"(l));
  }
  return static_cast<uint64_t>((a + b + c + d + e + f + g + h + i + j + k + l)[0]);
}
#endif

}  // namespace
}  // namespace gptoss
