// What libgptoss_ops.so exports; everything else in it is hidden.
#pragma once

#include "ort_abi.h"

#pragma GCC visibility push(default)
extern "C" {

// Offers the operators to one session: the entry point that ONNX Runtime looks up by this name.
// Returns null, or a status that says what is wrong; never aborts.
OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

// The package version that the library was built from, for instance "0.1.0".
const char* gptoss_ops_version();

// Operators of domain ai.gptoss with a native kernel, comma-separated; "" when there is none.
const char* gptoss_ops_kernels();

// The CPU level in use, for instance "avx512_vnni"; "" when GPTOSS_CPU_LEVEL cannot be honoured.
const char* gptoss_ops_cpu_level();

// One line on why RegisterCustomOps will refuse in this process; "" when it will not.
const char* gptoss_ops_error();

}  // extern "C"
#pragma GCC visibility pop
