#include "machine/cpu_features.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <optional>
#include <string>

#include "abi/error.h"

namespace gptoss {
namespace {

constexpr const char* kVariable = "GPTOSS_CPU_LEVEL";
constexpr CpuLevel kLevels[] = {CpuLevel::scalar,      CpuLevel::avx2,        CpuLevel::avx512,
                                CpuLevel::avx512_vnni, CpuLevel::avx512_vbmi, CpuLevel::avx512_bf16,
                                CpuLevel::amx};

std::string names_up_to(CpuLevel best) {
  std::string names;
  for (const CpuLevel level : kLevels) {
    if (level <= best) names += (names.empty() ? "" : ", ") + std::string(name_of(level));
  }
  return names;
}

std::optional<CpuLevel> level_named(const std::string& name) {
  for (const CpuLevel level : kLevels) {
    if (name == name_of(level)) return level;
  }
  return std::nullopt;
}

std::string environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

#if defined(__x86_64__)
// A process must ask Linux before it touches a tile register, since a context switch then saves 8
// kB more.
bool may_use_tiles() noexcept {
#if defined(__linux__)
  constexpr long kRequestPermission =
      0x1023;  // ARCH_REQ_XCOMP_PERM of <asm/prctl.h>, in Linux 5.16 and later
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

const char* name_of(CpuLevel level) noexcept {
  switch (level) {
    case CpuLevel::scalar:
      return "scalar";
    case CpuLevel::avx2:
      return "avx2";
    case CpuLevel::avx512:
      return "avx512";
    case CpuLevel::avx512_vnni:
      return "avx512_vnni";
    case CpuLevel::avx512_vbmi:
      return "avx512_vbmi";
    case CpuLevel::avx512_bf16:
      return "avx512_bf16";
    case CpuLevel::amx:
      return "amx";
  }
  return "";
}

CpuLevel detect_cpu_level() noexcept {
#if defined(__x86_64__)
  // The compiler's run-time check also asks the operating system whether it saves the wide
  // registers.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return CpuLevel::scalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuLevel::avx2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) return CpuLevel::avx512;
  if (!__builtin_cpu_supports("avx512vbmi")) return CpuLevel::avx512_vnni;
  if (!__builtin_cpu_supports("avx512bf16")) return CpuLevel::avx512_vbmi;
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16") ||
      !may_use_tiles()) {
    return CpuLevel::avx512_bf16;
  }
  return CpuLevel::amx;
#else
  return CpuLevel::scalar;
#endif
}

bool bf16_dots_are_fast() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

CpuLevel choose_cpu_level(const char* requested, CpuLevel best) {
  if (requested == nullptr || *requested == '\0') return best;
  const std::optional<CpuLevel> level = level_named(requested);
  if (level.has_value() && *level <= best) return *level;
  throw Error(ORT_INVALID_ARGUMENT, std::string("gptoss_ops: ") + kVariable + ": found '" +
                                        requested +
                                        "', expected a level of this CPU: " + names_up_to(best));
}

CpuLevel cpu_level() {
  static const CpuLevel best = detect_cpu_level();
  static const std::string requested = environment_variable(kVariable);
  return choose_cpu_level(requested.c_str(), best);
}

}  // namespace gptoss
