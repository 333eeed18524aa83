// How Linear and LinearInt8 spread a call over threads, once its operands are known to fit.
#pragma once

#include "machine/activations.h"
#include "abi/context.h"
#include "linear/linear_kernels.h"

namespace gptoss {

// Shapes of the operands: x (N, K), weight (M, K) or transposed (K, M), bias (M) or absent.
struct LinearShapes {
  size_t tokens, depth, rows;
};

// Checks the shapes of the inputs numbered `x`, `weight` and `bias`, whose addresses are not looked
// at.
LinearShapes check_linear_shapes(const Context& context, size_t x, size_t weight, size_t bias,
                                 bool transposed = false);

class LinearProduct {
 public:
  // The kernels are those of `activations`, to which tokens in format float32 are rounded here.
  LinearProduct(LinearKernels kernels, Activations activations)
      : kernels_(kernels), activations_(activations) {}

  // Computes y of `call`, whose tokens are as they came; the bias may lie at any address.
  void compute(const Context& context, LinearCall call) const;

 private:
  void multiply_vectors(const Context& context, const LinearCall& call) const;
  void multiply_blocks(const Context& context, const LinearCall& call) const;

  LinearKernels kernels_;
  Activations activations_;
};

}  // namespace gptoss
