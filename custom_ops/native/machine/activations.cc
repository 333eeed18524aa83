#include "machine/activations.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "abi/error.h"
#include "machine/bfloat16.h"

namespace gptoss {
namespace {

constexpr const char* kEntry = "gptoss.activations";

// At most 32 values, to 8 bits with one scale.
void round_to_int8(const float* x, size_t count, float* out) {
  constexpr float kLargest = 127;
  constexpr float kSmallest = 0x1p-100f;  // below it the inverse scale would overflow
  float largest = 0;
  bool finite = true;
  for (size_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  if (!finite) return void(std::fill(out, out + count, std::numeric_limits<float>::quiet_NaN()));
  if (largest < kSmallest) return void(std::fill(out, out + count, 0.0f));
  const float scale = largest / kLargest, inverse = kLargest / largest;
  for (size_t i = 0; i < count; ++i) out[i] = std::nearbyint(x[i] * inverse) * scale;
}

}  // namespace

const char* name_of(Activations activations) noexcept {
  switch (activations) {
    case Activations::exact:
      return "exact";
    case Activations::bf16:
      return "bf16";
    case Activations::int8:
      return "int8";
  }
  return "";
}

Activations activations_named(const std::string& name) {
  std::string known;
  for (const Activations activations : kActivations) {
    if (name == name_of(activations)) return activations;
    known += (known.empty() ? "" : ", ") + std::string(name_of(activations));
  }
  throw Error(ORT_INVALID_ARGUMENT, std::string("gptoss_ops: session config entry '") + kEntry +
                                        "': found '" + name + "', expected one of " + known);
}

Activations session_activations(const OrtApi& api, const OrtSessionOptions& options) {
  int is_set = 0;
  check(api, api.HasSessionConfigEntry(&options, kEntry, &is_set));
  if (!is_set) return Activations::exact;
  size_t size = 0;  // with the terminating zero
  check(api, api.GetSessionConfigEntry(&options, kEntry, nullptr, &size));
  std::string value(size, '\0');
  check(api, api.GetSessionConfigEntry(&options, kEntry, value.data(), &size));
  value.resize(size == 0 ? 0 : size - 1);
  return activations_named(value);
}

void round_activations(Activations activations, const float* x, size_t count, float* out) noexcept {
  constexpr size_t kBlock = 32;
  switch (activations) {
    case Activations::exact:
      std::copy(x, x + count, out);
      break;
    case Activations::bf16:
      for (size_t i = 0; i < count; ++i) out[i] = round_to_bf16(x[i]);
      break;
    case Activations::int8:
      for (size_t i = 0; i < count; i += kBlock)
        round_to_int8(x + i, std::min(kBlock, count - i), out + i);
      break;
  }
}

}  // namespace gptoss
