// Makes an OrtCustomOp out of a kernel class, which states:
//
//   static constexpr const char* kName;
//       The operator's name.
//   static constexpr Port kInputs[], kOutputs[];
//       Its schema.
//   Kernel(const OrtApi&, const OrtKernelInfo&);
//   Kernel(const OrtApi&, const OrtKernelInfo&, Activations);
//       One of the two, the second if the session's activation mode matters. Reads attributes and
//       constant inputs; may throw Error.
//   void compute(const Context&) const;
//       Computes one call; may throw Error. Several threads may be in it.
#pragma once

#include <iterator>
#include <type_traits>

#include "machine/activations.h"
#include "abi/context.h"
#include "abi/error.h"
#include "abi/ort_abi.h"

namespace gptoss {

template <class Kernel>
class CustomOp final : public OrtCustomOp {
 public:
  explicit CustomOp(Activations activations) : OrtCustomOp{}, activations_(activations) {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp*) { return Kernel::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* {
      return nullptr;
    };  // null means CPU
    GetInputTypeCount = [](const OrtCustomOp*) { return std::size(Kernel::kInputs); };
    GetInputType = [](const OrtCustomOp*, size_t index) { return Kernel::kInputs[index].type; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Kernel::kInputs[index].presence;
    };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetOutputTypeCount = [](const OrtCustomOp*) { return std::size(Kernel::kOutputs); };
    GetOutputType = [](const OrtCustomOp*, size_t index) { return Kernel::kOutputs[index].type; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Kernel::kOutputs[index].presence;
    };
    // Of a variadic last input, which few kernels have: all of one type.
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    KernelDestroy = [](void* instance) { delete static_cast<Instance*>(instance); };
  }

 private:
  struct Instance {
    const OrtApi& api;
    Kernel kernel;
  };

  static OrtStatus* create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                           void** out) noexcept {
    const Activations activations = static_cast<const CustomOp*>(op)->activations_;
    return guarded(*api, [&] { *out = new Instance{*api, make_kernel(*api, *info, activations)}; });
  }

  static Kernel make_kernel(const OrtApi& api, const OrtKernelInfo& info, Activations activations) {
    if constexpr (std::is_constructible_v<Kernel, const OrtApi&, const OrtKernelInfo&,
                                          Activations>) {
      return Kernel(api, info, activations);
    } else {
      return Kernel(api, info);
    }
  }

  static OrtStatus* compute(void* opaque, OrtKernelContext* context) noexcept {
    const auto& instance = *static_cast<const Instance*>(opaque);
    return guarded(instance.api, [&] {
      instance.kernel.compute(Context(instance.api, *context, Kernel::kName, Kernel::kInputs));
    });
  }

  Activations activations_;
};

}  // namespace gptoss
