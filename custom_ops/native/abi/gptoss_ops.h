// What libgptoss_ops.so exports; everything else in it is hidden.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/ort_abi.h"

#pragma GCC visibility push(default)
extern "C" {

// Offers the operators to one session: the entry point that ONNX Runtime looks up by this name.
// Returns null, or a status that says what is wrong; never aborts.
OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base);

// The package version that the library was built from, for instance "0.2.0".
const char* gptoss_ops_version();

// Operators of domain ai.gptoss with a native kernel, comma-separated; "" if it has none.
const char* gptoss_ops_kernels();

// The CPU level in use, for instance "avx512_vnni"; "" when GPTOSS_CPU_LEVEL cannot be honoured.
const char* gptoss_ops_cpu_level();

// One line on why RegisterCustomOps will refuse in this process; "" when it will not.
const char* gptoss_ops_error();

// Reads `count` bytes once with `threads` threads that start together, as fast as the machine can;
// returns the seconds from the first start to the last end, or a negative number where there are no
// such threads.
double gptoss_machine_read(const void* bytes, size_t count, int threads);

// Runs one kind of instruction for some ten milliseconds a thread, and returns multiplications plus
// additions a second of all threads together: 0 where the machine lacks it, a negative number where
// there are no such threads. `unit` is "fma" (float32), "bf16", "int8" or "int16" (dot products of
// vectors, or pairs of products and their addition), "amx_bf16" or "amx_int8".
double gptoss_machine_compute(const char* unit, int threads);

// How a token is drawn: the settings of Sampling in the runtime. 0 turns top_k and min_p off, 1
// top_p; 0 ≤ uniform < 1 is the random number.
struct GptossDraw {
  double temperature;
  int64_t top_k;
  double top_p;
  double min_p;
  double uniform;
};

// Draws one of `vocab` tokens by their scores, float or double, of which `top` is the largest, and
// which are finite or −∞. `weights` and `bins` have as many elements as there are tokens, and are
// written. Returns the token, −1 where there is no memory, −2 where gptoss_ops_error is not "".
int64_t gptoss_draw_token(const void* scores, int is_float64, int64_t vocab, double top,
                          const GptossDraw* draw, double* weights, uint16_t* bins);

// Encodes a matrix as custom_ops/mxfp4_quantize.py does, which is the definition: codes (rows,
// groups, 16), of which a row begins `pitch` blocks behind the one before it, and scales (rows,
// groups) likewise; by rows, `pitch` is `groups`. The numbers lie as (rows, groups · 32), or with
// `columns` as (groups · 32, rows); `element` is 0 for float32, 1 for float16, 2 for bfloat16.
// `lost` and `total` get the sums of the squares of what was added to numbers, and of the numbers;
// a block that is not finite gets the scale 255. Returns 0, or −2 where gptoss_ops_error is not "".
int gptoss_quantize_mxfp4(const void* numbers, int element, int64_t rows, int64_t groups,
                          int columns, int64_t pitch, uint8_t* codes, uint8_t* scales,
                          double* lost, double* total);

// Returns 1 if all blocks of such a matrix are MXFP4 by their values, 0 if one is not, −2 where
// gptoss_ops_error is not "".
int gptoss_is_mxfp4(const void* numbers, int element, int64_t rows, int64_t groups, int columns);

// Decodes as decode_mxfp4 of custom_ops/mxfp4.py does: 16 bytes of codes and a scale a block become
// 32 numbers. Returns 0, or −2 where gptoss_ops_error is not "".
int gptoss_decode_mxfp4(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        float* numbers);

// Adds scale · left (rows, rank) · right (rank, width) to rows of numbers (rows, width), as
// add_low_rank of custom_ops/low_rank.py does; writes the float32 sums rounded to bfloat16, (rows,
// width). The numbers are bfloat16; or, where `scales` is not null, MXFP4: 16 bytes of codes and a
// scale for each 32 of a row. Returns 0, −1 where there is no memory, −2 where gptoss_ops_error is
// not "".
int gptoss_add_low_rank(const void* numbers, const uint8_t* scales, int64_t rows, int64_t width,
                        const float* left, const float* right, int64_t rank, float scale,
                        uint16_t* sums);

}  // extern "C"
#pragma GCC visibility pop
