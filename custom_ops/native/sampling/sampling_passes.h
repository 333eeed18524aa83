// The passes in a form that the compiler turns into vector instructions; included by one file a
// level, so everything here is in an anonymous namespace.
#pragma once

#include <cstdint>

#include "sampling/sampling.h"

namespace gptoss {
namespace {

constexpr int kLanes = 16;  // sums that grow side by side, as vector instructions want it

// e^x for x ≤ 0 within two units of the last place: 2^n times the series of e^r for what is left,
// |r| ≤ ln(2) / 2. 0 where it has no more than 52 bits.
inline double exp_of(double x) {
  constexpr double kLog2E = 1.4426950408889634, kLn2High = 0.6931471803691238,
                   kLn2Low = 1.9082149292705877e-10;
  constexpr double kRound = 6755399441055744;  // 1.5 · 2^52: a sum with it has no fraction
  constexpr double kLeast = -708;
  const double clamped = x < kLeast ? kLeast : x;
  const double shifted = clamped * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (clamped - n * kLn2High) - n * kLn2Low;
  double sum = 1.0 / 6227020800;  // 1 / 13!
  sum = sum * r + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1;
  sum = sum * r + 1;
  int64_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = static_cast<int64_t>((static_cast<uint64_t>(bits) + 1023) << 52);  // of 2^n
  double power;
  __builtin_memcpy(&power, &bits, sizeof power);
  const double value = sum * power;
  return x < kLeast ? 0 : value;
}

inline uint16_t bin_of(double score) {
  const double place = (score - kLowest) * (kBins / -kLowest);
  const double inside = place > 0 ? place : 0;
  return static_cast<uint16_t>(static_cast<int32_t>(inside < kBins - 1 ? inside : kBins - 1));
}

inline double sum_of(const double* weights, int64_t count) {
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += weights[i + lane];
  for (; i < count; ++i) sums[0] += weights[i];
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return sum;
}

template <class Score>
double weigh(const Score* __restrict scores, int64_t count, const Scale& scale,
             double* __restrict weights, uint16_t* __restrict bins) {
  const double top = scale.top, temperature = scale.temperature, least = scale.least;
  for (int64_t i = 0; i < count; ++i) {
    const double score = (static_cast<double>(scores[i]) - top) / temperature;
    const double weight = exp_of(score);
    weights[i] = score >= least ? weight : 0;
    bins[i] = bin_of(score);
  }
  return sum_of(weights, count);
}

template <class Score>
double keep(const Score* __restrict scores, int64_t count, const Scale& scale,
            double* __restrict weights) {
  const double top = scale.top, temperature = scale.temperature, least = scale.least;
  for (int64_t i = 0; i < count; ++i) {
    const double score = (static_cast<double>(scores[i]) - top) / temperature;
    weights[i] = score >= least ? weights[i] : 0;
  }
  return sum_of(weights, count);
}

}  // namespace
}  // namespace gptoss
