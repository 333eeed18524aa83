// How a package's graph is opened; no part of the client's interface.
#pragma once

#include "session.h"
#include "text.h"

namespace gptoss {

// What runs a graph, and why.
struct Kernels {
  std::string name;  // native, portable or contrib
  std::string reason;
  std::filesystem::path library;  // of native ones
};

// Throws where the library of ONNX Runtime is older than the headers or than the graph needs.
// Without its functions no object of it could even be destroyed, so this comes before the first.
const Package& after_version_check(const Package& package);

// Throws where the options name no kernels that there are.
Kernels choose_kernels(const Package& package, const Options& options);

Ort::Session open_graph(const Ort::Env& env, const Package& package, const Options& options,
                        const Kernels& kernels);

// What ONNX Runtime says of a graph, in one line that names the file.
Error refusal(const Package& package, const Ort::Exception& error);

}  // namespace gptoss
