// LinearInt8 times a few tokens with AVX-512 VNNI: eight-bit dot products, in one to three digits
// of a token.
//
// 32 values of a token become integers of a common scale, so that their product with a block of
// weights is one too. Such an integer is written in signed digits of base 256, and each digit takes
// one pass of dot products over the weights: one digit is mode int8; two hold bfloat16's eight bits
// 2^8 below the block's largest value; three are a fixed point of 24 bits, what float32 has. Sums
// of a block are exact; blocks add up in float32.
#include "linear/linear_streams.h"
#include "machine/digits.h"

namespace gptoss {
namespace {

constexpr size_t kPair = 2;            // blocks whose weights fill a register
constexpr size_t kRunBlocks = kLanes;  // blocks whose scales do
constexpr size_t kRunPairs = kRunBlocks / kPair;
constexpr int kOffset =
    128;  // added to weights, −127 … 127, because one side of a dot product is unsigned

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

// What three digits add up to in float32: the last two in one int32, the first in another.
template <size_t digits>
constexpr size_t kParts = digits == 3 ? 2 : 1;

// A token's values for two blocks, 64 bytes for each digit, the last digit first.
template <size_t digits>
struct alignas(64) Pair {
  int8_t values[digits][kPair * kScaleBlock];
  // By part and block −128 · Σ values, which takes the offset back, in the first of its eight
  // lanes; zero elsewhere.
  int32_t correction[kParts<digits>][kLanes];
};

// A token's values for sixteen blocks. A token is a row of these; what the last one lacks is never
// read.
template <size_t digits>
struct alignas(64) Run {
  Pair<digits> pairs[kRunPairs];
  float scale[kRunBlocks];
};

// The largest integer of a block: of three digits the first is at most 127.
template <size_t digits>
constexpr float kLargest = digits == 1   ? 127.0f
                           : digits == 2 ? 127.0f * 256
                                         : 127.0f * 65536;

template <size_t digits>
size_t lanes(size_t depth) noexcept {
  const size_t runs = (depth / kScaleBlock + kRunBlocks - 1) / kRunBlocks;
  return runs * sizeof(Run<digits>) / sizeof(float);
}

// The first digit of three, which the last two leave.
__m512i first_digit(__m512i integers) {
  const __m512i half = _mm512_set1_epi32(0x8080);  // rounds as the signed digits below do
  return _mm512_srai_epi32(_mm512_add_epi32(integers, half), 16);
}

template <size_t digits>
void store_corrections(__m512i first, __m512i second, Pair<digits>& pair, size_t block) {
  const auto store = [&](size_t part, int sum) {
    const __m256i lanes = _mm256_setr_epi32(-kOffset * sum, 0, 0, 0, 0, 0, 0, 0);
    _mm256_store_si256(reinterpret_cast<__m256i*>(pair.correction[part] + block * 8), lanes);
  };
  if constexpr (digits == 3) {
    const __m512i top_a = first_digit(first), top_b = first_digit(second);
    first = _mm512_sub_epi32(first, _mm512_slli_epi32(top_a, 16));
    second = _mm512_sub_epi32(second, _mm512_slli_epi32(top_b, 16));
    store(1, _mm512_reduce_add_epi32(_mm512_add_epi32(top_a, top_b)));
  }
  store(0, _mm512_reduce_add_epi32(_mm512_add_epi32(first, second)));
}

// Returns the block's scale.
template <size_t digits>
float pack_block(const float* x, Pair<digits>& pair, size_t block) {
  const auto [first, second, scale] = to_integers<digits == 2>(x, kLargest<digits>);
  store_digits(first, pair.values, block * kScaleBlock);
  store_digits(second, pair.values, block * kScaleBlock + kLanes);
  store_corrections(first, second, pair, block);
  return scale;
}

template <size_t digits>
void pack(const float* x, size_t depth, float* out) noexcept {
  auto* runs = reinterpret_cast<Run<digits>*>(out);
  __builtin_memset(out, 0,
                   lanes<digits>(depth) * sizeof(float));  // a last pair may have but one block
  for (size_t block = 0; block < depth / kScaleBlock; ++block) {
    Run<digits>& run = runs[block / kRunBlocks];
    const size_t place = block % kRunBlocks;
    run.scale[place] = pack_block(x + block * kScaleBlock, run.pairs[place / kPair], place % kPair);
  }
}

// Dot products of two blocks of weights, offset to be unsigned, with a token, by lane and in
// float32.
template <size_t digits>
__m512 pair_dot(__m512i weights, const Pair<digits>& pair) {
  const auto dot = [&](size_t digit, __m512i start) {
    return _mm512_dpbusd_epi32(start, weights, _mm512_load_si512(pair.values[digit]));
  };
  __m512i sum = dot(0, _mm512_load_si512(pair.correction[0]));
  if constexpr (digits > 1)
    sum = _mm512_add_epi32(sum, _mm512_slli_epi32(dot(1, _mm512_setzero_si512()), 8));
  const __m512 low = _mm512_cvtepi32_ps(sum);
  if constexpr (digits < 3) return low;
  const __m512 high =
      _mm512_cvtepi32_ps(dot(digits - 1, _mm512_load_si512(pair.correction[kParts<digits> - 1])));
  return _mm512_fmadd_ps(high, _mm512_set1_ps(65536.0f), low);
}

// Bytes of each row to prefetch, and of its scales. So many bytes of four rows would leave no room
// for the token in the first-level cache, so they wait in the second.
constexpr size_t kAhead = 2048;
constexpr size_t kScalesAhead = 128;

// Which of a run's scales belong to the eight lanes of each block of a pair.
struct Spread {
  alignas(64) int32_t lanes[kRunPairs][kLanes];
};
constexpr Spread spread() {
  Spread spread{};
  for (size_t pair = 0; pair < kRunPairs; ++pair) {
    for (size_t lane = 0; lane < kLanes; ++lane)
      spread.lanes[pair][lane] = static_cast<int32_t>(2 * pair + lane / 8);
  }
  return spread;
}
constexpr Spread kSpread = spread();

template <size_t digits>
struct DigitProducts {
  template <size_t kTokens, size_t kRows>
  static void multiply(const LinearCall& call, size_t m, size_t step, size_t first_token);
};

template <size_t digits>
template <size_t kTokens, size_t kRows>
void DigitProducts<digits>::multiply(const LinearCall& call, size_t m, size_t step,
                                     size_t first_token) {
  const size_t blocks = call.depth / kScaleBlock, scale_bytes = blocks * sizeof(float);
  const unsigned char* rows = call.weight + m * call.row_bytes;
  const unsigned char* scales = call.scales + m * scale_bytes;
  const auto* tokens = reinterpret_cast<const Run<digits>*>(call.x + first_token * call.lanes);
  const size_t token_runs = call.lanes * sizeof(float) / sizeof(Run<digits>);
  __m512 sums[kRows][kTokens];
#pragma GCC unroll 4  // these loops are unrolled to keep the sums in registers
  for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (size_t n = 0; n < kTokens; ++n) sums[r][n] = _mm512_setzero_ps();
  }
  for (size_t run = 0; run * kRunBlocks < blocks; ++run) {
    const size_t here = least(kRunBlocks, blocks - run * kRunBlocks);
    const __mmask16 mask = static_cast<__mmask16>((1u << here) - 1);
    __m512 both[kRows][kTokens];  // scales of weights times those of tokens
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
      const unsigned char* address =
          scales + r * step * scale_bytes + run * kRunBlocks * sizeof(float);
      _mm_prefetch(address + kScalesAhead, _MM_HINT_T0);
      const __m512 scale = _mm512_maskz_loadu_ps(mask, address);
#pragma GCC unroll 4
      for (size_t n = 0; n < kTokens; ++n) {
        both[r][n] = _mm512_mul_ps(scale, _mm512_load_ps(tokens[n * token_runs + run].scale));
      }
    }
    const auto add = [&](size_t pair, const auto& load) {
      const __m512i lanes = _mm512_load_si512(kSpread.lanes[pair]);
      const size_t offset = (run * kRunPairs + pair) * kPair * kScaleBlock;
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const unsigned char* address = rows + r * step * call.row_bytes + offset;
        _mm_prefetch(address + kAhead, _MM_HINT_T1);
        const __m512i weights =
            _mm512_xor_si512(load(address), _mm512_set1_epi8(static_cast<char>(kOffset)));
#pragma GCC unroll 4
        for (size_t n = 0; n < kTokens; ++n) {
          const __m512 dot = pair_dot(weights, tokens[n * token_runs + run].pairs[pair]);
          sums[r][n] = _mm512_fmadd_ps(dot, _mm512_permutexvar_ps(lanes, both[r][n]), sums[r][n]);
        }
      }
    };
    for (size_t pair = 0; pair < here / kPair; ++pair) {
      add(pair, [](const unsigned char* address) { return _mm512_loadu_si512(address); });
    }
    if (here % kPair != 0) {
      add(here / kPair, [](const unsigned char* address) {
        return _mm512_maskz_loadu_epi8(0xffffffff, address);
      });
    }
  }
  write_totals<Floats16>(call, m, step, first_token, sums);
}

template <size_t digits>
void matrix_vector(const LinearCall& call, size_t begin, size_t end) noexcept {
  // As many rows and tokens as there are registers for their sums.
  multiply_streams<DigitProducts<digits>, 4, 4>(call, begin, end);
}

// The most tokens for which this is the faster, and not panels.
template <size_t digits>
constexpr size_t kVectorTokens = digits == 1   ? 5
                                 : digits == 2 ? 4
                                               : 3;

template <size_t digits>
LinearKernels kernels() {
  LinearKernels kernels{};
  kernels.matrix_vector = matrix_vector<digits>;
  kernels.vector_format = TokenFormat::packed;
  kernels.vector_tokens = kVectorTokens<digits>;
  kernels.packing = {lanes<digits>, pack<digits>};
  return kernels;
}

}  // namespace

LinearKernels linear_int8_vnni(Activations activations) {
  LinearKernels chosen = activations == Activations::int8   ? kernels<1>()
                         : activations == Activations::bf16 ? kernels<2>()
                                                            : kernels<3>();
  use_int8_panels_vnni(activations, chosen);
  return chosen;
}

}  // namespace gptoss
