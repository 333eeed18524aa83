// Makes an OrtCustomOp out of a kernel class, which states:
//
//   static constexpr const char* kName;         the operator's name
//   static constexpr Port kInputs[], kOutputs[];  its schema
//   Kernel(const OrtApi&, const OrtKernelInfo&);  reads attributes and constant inputs; may throw Error
//   void compute(const Context&) const;           computes one call; may throw Error, may run concurrently
#pragma once

#include <iterator>

#include "context.h"
#include "error.h"
#include "ort_abi.h"

namespace gptoss {

template <class Kernel>
class CustomOp final : public OrtCustomOp {
 public:
  CustomOp() : OrtCustomOp{} {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp*) { return Kernel::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // null means CPU
    GetInputTypeCount = [](const OrtCustomOp*) { return std::size(Kernel::kInputs); };
    GetInputType = [](const OrtCustomOp*, size_t index) { return Kernel::kInputs[index].type; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t index) { return Kernel::kInputs[index].presence; };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetOutputTypeCount = [](const OrtCustomOp*) { return std::size(Kernel::kOutputs); };
    GetOutputType = [](const OrtCustomOp*, size_t index) { return Kernel::kOutputs[index].type; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Kernel::kOutputs[index].presence;
    };
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
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

  static OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                           void** out) noexcept {
    return guarded(*api, [&] { *out = new Instance{*api, Kernel(*api, *info)}; });
  }

  static OrtStatus* compute(void* opaque, OrtKernelContext* context) noexcept {
    const auto& instance = *static_cast<const Instance*>(opaque);
    return guarded(instance.api, [&] {
      instance.kernel.compute(Context(instance.api, *context, Kernel::kName, Kernel::kInputs));
    });
  }
};

}  // namespace gptoss
