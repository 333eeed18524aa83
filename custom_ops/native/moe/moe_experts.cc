#include "moe/moe_experts.h"

#include <algorithm>
#include <cstring>

#include "machine/aligned_bytes.h"
#include "machine/cpu_features.h"
#include "machine/tasks.h"
#include "moe/moe_activation.h"

namespace gptoss {
namespace {

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

// Biases may be initializers that lie anywhere in a mapped file, where no float pointer may be
// followed.
const std::byte* address_of(const float* bias, size_t index) {
  if (bias == nullptr) return nullptr;
  return reinterpret_cast<const std::byte*>(bias) + index * sizeof(float);
}

float bias_at(const std::byte* bias, size_t index) {
  if (bias == nullptr) return 0;
  float value;
  std::memcpy(&value, bias + index * sizeof value, sizeof value);
  return value;
}

// Where the tokens of each group lie among the packed ones: every group begins a tile.
struct Places {
  std::vector<size_t> first;  // by group
  size_t total;
};

Places place_groups(const Routing& routing, size_t tile) {
  Places places{{}, 0};
  for (const ExpertGroup& group : routing.groups) {
    places.first.push_back(places.total);
    places.total += round_up(group.count, tile);
  }
  return places;
}

// One call of the op: gate_up for every expert and slice of its outputs, then down likewise.
class Run {
 public:
  Run(const Context& context, const MoELayer& layer, const MoEAttributes& attributes,
      const Routing& routing, float* output)
      : context_(context),
        layer_(layer),
        attributes_(attributes),
        routing_(routing),
        output_(output) {
    for (const ExpertGroup& group : routing.groups)
      most_tokens_ = std::max(most_tokens_, group.count);
    activated_places_ = place_groups(routing, layer.down.tile());
    activated_ = AlignedBytes(layer.down.packed_bytes(activated_places_.total));
  }

  void compute() {
    pack_hidden();
    run_gate_up();
    run_down();
  }

 private:
  // A token is packed once for each of its experts, so that the tokens of an expert lie together. A
  // single token, the usual case while decoding, is packed once for all.
  void pack_hidden() {
    const bool shared = layer_.tokens == 1;
    hidden_places_ = place_groups(routing_, layer_.gate_up.tile());
    if (shared) {
      hidden_places_.total = 1;
      std::fill(hidden_places_.first.begin(), hidden_places_.first.end(), 0);
    }
    hidden_ = AlignedBytes(layer_.gate_up.packed_bytes(hidden_places_.total));
    if (shared)
      return layer_.gate_up.pack(layer_.hidden, 0, layer_.hidden_size, {0, 0, 1}, hidden_.data());
    run_tasks(context_, routing_.groups.size(), [&](size_t, size_t g) noexcept {
      const ExpertGroup& group = routing_.groups[g];
      for (size_t i = 0; i < group.count; ++i) {
        const float* x = layer_.hidden + routing_.slots[group.first + i].token * layer_.hidden_size;
        layer_.gate_up.pack(x, 0, layer_.hidden_size, {hidden_places_.first[g], i, group.count},
                            hidden_.data());
      }
    });
  }

  // A task is a slice of the activations: its rows of gate_up lie together, or apart where gates
  // come before ups.
  void run_gate_up() {
    const ExpertActivation& activation = attributes_.activation;
    const size_t rows_each = activation.rows_each(), rows = rows_each * layer_.width;
    const bool apart = activation.gated() && !activation.interleaved;
    const size_t slice =
        std::max<size_t>(1, std::min(layer_.gate_up.outputs_per_task(), rows) / rows_each);
    const size_t slices = round_up(layer_.width, slice) / slice, stride = rows_each * slice;
    const size_t tasks = routing_.groups.size() * slices;
    Scratch scratch(layer_.gate_up, most_tokens_, stride, workers_for(tasks));
    run_tasks(context_, tasks, [&](size_t worker, size_t task) noexcept {
      const size_t g = task / slices, first = task % slices * slice;
      const size_t count = std::min(slice, layer_.width - first);
      const ExpertGroup& group = routing_.groups[g];
      float* y = scratch.products(worker);
      const auto multiply = [&](size_t row, size_t some, float* out) {
        layer_.gate_up.multiply(group.expert, row, some,
                                {hidden_.data(), hidden_places_.first[g], group.count},
                                scratch.kernel(worker), out, stride);
      };
      const auto bias = [&](size_t row) {
        return address_of(layer_.gate_up_bias, group.expert * rows + row);
      };
      const size_t gates = apart ? first : rows_each * first, ups = layer_.width + first;
      multiply(gates, apart ? count : rows_each * count, y);
      if (apart) multiply(ups, count, y + slice);
      const std::byte* gate_bias = bias(gates);
      const std::byte* up_bias = bias(ups);
      for (size_t i = 0; i < group.count; ++i) {
        float* values = y + i * stride;
        activate_({values, values + slice, gate_bias, up_bias, count}, activation);
        layer_.down.pack(values, first, count, {activated_places_.first[g], i, group.count},
                         activated_.data());
      }
    });
  }

  void run_down() {
    std::fill_n(output_, layer_.tokens * layer_.hidden_size, 0.0f);
    if (layer_.few) {
      run_down_by_expert();
    } else {
      run_down_by_slice();
    }
  }

  // Few tokens an expert: every expert and slice is a task, as many as the threads can share
  // evenly; the sum comes afterwards.
  void run_down_by_expert() {
    const size_t outputs = layer_.hidden_size;
    const size_t slice = std::min(layer_.down.outputs_per_task(), outputs);
    const size_t slices = round_up(outputs, slice) / slice;
    const size_t tasks = routing_.groups.size() * slices;
    AlignedBytes memory(routing_.slots.size() * outputs * sizeof(float));
    auto* products = reinterpret_cast<float*>(memory.data());
    Scratch scratch(layer_.down, most_tokens_, 0, workers_for(tasks));
    run_tasks(context_, tasks, [&](size_t worker, size_t task) noexcept {
      const size_t g = task / slices, first = task % slices * slice;
      const ExpertGroup& group = routing_.groups[g];
      layer_.down.multiply(group.expert, first, std::min(slice, outputs - first),
                           {activated_.data(), activated_places_.first[g], group.count},
                           scratch.kernel(worker), products + group.first * outputs + first,
                           outputs);
    });
    add_by_slice(products);
  }

  // Each output is summed by one task, in the order of experts.
  void add_by_slice(const float* products) {
    constexpr size_t kLeastFloats = 16 << 10;  // of a task: starting another takes as long
    const size_t outputs = layer_.hidden_size, all = routing_.slots.size() * outputs;
    const size_t tasks = std::clamp<size_t>(all / kLeastFloats, 1, 2 * processors());
    const auto add = [&](size_t task) noexcept {
      const size_t first = outputs * task / tasks, end = outputs * (task + 1) / tasks;
      for (const ExpertGroup& group : routing_.groups) {
        add_weighted(group, products + group.first * outputs + first, outputs, first, end - first);
      }
    };
    if (tasks == 1) return add(0);
    run_tasks(context_, tasks, [&](size_t, size_t task) noexcept { add(task); });
  }

  // Many: a task is a slice of the output and visits all experts, so that no two threads add
  // to one place and only a slice's products are held.
  void run_down_by_slice() {
    const std::vector<size_t> begins =
        slices_of(layer_.hidden_size, layer_.down.outputs_per_task());
    const size_t tasks = begins.size() - 1, widest = begins[1];
    Scratch scratch(layer_.down, most_tokens_, widest, workers_for(tasks));
    run_tasks(context_, tasks, [&](size_t worker, size_t task) noexcept {
      const size_t first = begins[task], count = begins[task + 1] - first;
      for (size_t g = 0; g < routing_.groups.size(); ++g) {
        const ExpertGroup& group = routing_.groups[g];
        float* y = scratch.products(worker);
        layer_.down.multiply(group.expert, first, count,
                             {activated_.data(), activated_places_.first[g], group.count},
                             scratch.kernel(worker), y, widest);
        add_weighted(group, y, widest, first, count);
      }
    });
  }

  // Where slices of the outputs begin, and the end: of `most` while much is left, then ever shorter
  // ones, so that the cores end together.
  static std::vector<size_t> slices_of(size_t outputs, size_t most) {
    constexpr size_t kUnit = 64, kSlicesACore = 2;  // of what is left
    std::vector<size_t> begins{0};
    for (size_t left = outputs; left > 0; left = outputs - begins.back()) {
      const size_t even = left / (kSlicesACore * processors()) / kUnit * kUnit;
      begins.push_back(begins.back() + std::min({left, most, std::max(even, kUnit)}));
    }
    return begins;
  }

  void add_weighted(const ExpertGroup& group, const float* y, size_t stride, size_t first,
                    size_t count) {
    const std::byte* bias = address_of(layer_.down_bias, group.expert * layer_.hidden_size + first);
    for (size_t i = 0; i < group.count; ++i) {
      const Slot& slot = routing_.slots[group.first + i];
      float* out = output_ + slot.token * layer_.hidden_size + first;
      for (size_t j = 0; j < count; ++j)
        out[j] += slot.share * (y[i * stride + j] + bias_at(bias, j));
    }
  }

  // What each worker needs to itself. Pages that no worker touches are never committed.
  class Scratch {
   public:
    Scratch(const Projection& projection, size_t tokens, size_t outputs, size_t workers)
        : kernel_bytes_(round_up(projection.scratch_bytes(tokens), AlignedBytes::kAlignment)),
          bytes_(kernel_bytes_ +
                 round_up(tokens * outputs * sizeof(float), AlignedBytes::kAlignment)),
          memory_(bytes_ * workers) {}
    std::byte* kernel(size_t worker) { return memory_.data() + worker * bytes_; }
    float* products(size_t worker) {
      return reinterpret_cast<float*>(kernel(worker) + kernel_bytes_);
    }

   private:
    size_t kernel_bytes_, bytes_;
    AlignedBytes memory_;
  };

  const Context& context_;
  const MoELayer& layer_;
  const MoEAttributes& attributes_;
  const Routing& routing_;
  float* output_;
  const Activate activate_ = activation_kernel(cpu_level(), attributes_.activation);
  size_t most_tokens_ = 0;
  Places hidden_places_{}, activated_places_{};
  AlignedBytes hidden_, activated_;
};

}  // namespace

void run_experts(const Context& context, const MoELayer& layer, const MoEAttributes& attributes,
                 const Routing& routing, float* output) {
  Run(context, layer, attributes, routing, output).compute();
}

}  // namespace gptoss
