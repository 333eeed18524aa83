// The exported functions that describe the library; Python reads them through ctypes.
#include <string>

#include "machine/cpu_features.h"
#include "abi/error.h"
#include "abi/gptoss_ops.h"
#include "abi/operators.h"

namespace {

// Names of the operators of ai.gptoss; one name may stand for several kernels, one per dtype.
std::string kernel_names() {
  std::string names;
  for (const gptoss::Domain& domain : gptoss::domains(gptoss::Activations::exact)) {
    if (domain.name != std::string(gptoss::kDomain)) continue;
    for (const OrtCustomOp* op : domain.operators) {
      const std::string name = op->GetName(op);
      if (("," + names + ",").find("," + name + ",") != std::string::npos) continue;
      names += (names.empty() ? "" : ",") + name;
    }
  }
  return names;
}

struct CpuReport {
  std::string level;
  std::string error;
};

CpuReport report_cpu() {
  try {
    return {gptoss::name_of(gptoss::cpu_level()), ""};
  } catch (const gptoss::Error& error) {
    return {"", error.what()};
  }
}

const CpuReport& cpu_report() {
  static const CpuReport report = report_cpu();
  return report;
}

}  // namespace

const char* gptoss_ops_version() { return GPTOSS_OPS_VERSION; }

const char* gptoss_ops_kernels() {
  static const std::string names = kernel_names();
  return names.c_str();
}

const char* gptoss_ops_cpu_level() { return cpu_report().level.c_str(); }

const char* gptoss_ops_error() { return cpu_report().error.c_str(); }
