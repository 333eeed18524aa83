// Which vector instructions the kernels may use: found once, at load.
#pragma once

namespace gptoss {

// Each level includes the ones before it. Every kernel has a scalar version; the others are chosen
// by level.
enum class CpuLevel {
  scalar,
  avx2,         // AVX2, FMA and F16C
  avx512,       // AVX-512 F, BW, DQ, VL
  avx512_vnni,  // and 8-bit dot products
  avx512_vbmi,  // and permutations of bytes
  avx512_bf16,  // and bfloat16 dot products
  amx,          // and AMX tiles with bfloat16 products
};

const char* name_of(CpuLevel level) noexcept;

// The best level of this CPU and operating system. Asks Linux for the use of AMX tiles where the
// CPU has them.
CpuLevel detect_cpu_level() noexcept;

// The level that `requested` names; null or "" asks for `best`. Throws Error for an unknown level
// and for one above `best`.
CpuLevel choose_cpu_level(const char* requested, CpuLevel best);

// The level in use: the best one, or what the environment variable GPTOSS_CPU_LEVEL asks for. The
// variable is read at the first call; a value that cannot be honoured throws Error at every call.
CpuLevel cpu_level();

// Whether a bfloat16 dot product of 512 bits takes as long as one of bytes or words. AMD documents
// that from Zen 4 on; Intel's processors take twice as long, without AMX as with it.
bool bf16_dots_are_fast() noexcept;

}  // namespace gptoss
