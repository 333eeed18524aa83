// Decoding MXFP4 to float32: what decode_mxfp4 of custom_ops/mxfp4.py, the definition, computes.
#pragma once

#include <cstdint>

namespace gptoss {

// Writes 32 numbers for each of `count` blocks: 16 bytes of codes and a scale.
using Decode = void (*)(const unsigned char* codes, const unsigned char* scales, int64_t count,
                        float* numbers);

void decode_scalar(const unsigned char* codes, const unsigned char* scales, int64_t count,
                   float* numbers);
void decode_avx2(const unsigned char* codes, const unsigned char* scales, int64_t count,
                 float* numbers);

}  // namespace gptoss
