// What a kernel sees while it computes: typed inputs and outputs, ORT's threads, errors that name
// the input.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "abi/error.h"
#include "abi/ort_abi.h"

namespace gptoss {

// One input or output of an operator, as its schema declares it.
struct Port {
  const char* name;
  ONNXTensorElementDataType type;
  OrtCustomOpInputOutputCharacteristic presence = INPUT_OUTPUT_REQUIRED;
};

using Shape = std::vector<int64_t>;

// "(2, 3)", "(4)", "()": shapes as error messages print them.
inline std::string describe(const Shape& shape) {
  std::string text = "(";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  }
  return text + ")";
}

// An input; `data` is null for an optional input that the node leaves out.
template <class T>
struct Input {
  Shape shape;
  const T* data;
};

class Context {
 public:
  Context(const OrtApi& api, OrtKernelContext& context, const char* op, const Port* inputs)
      : api_(api), context_(context), op_(op), inputs_(inputs) {}

  // ONNX Runtime has matched the element type against the Port before it calls us.
  template <class T>
  Input<T> input(size_t index) const {
    return {shape(index), data<T>(index)};
  }

  // How many inputs the node has; those of a variadic operand, the last one, count one by one.
  size_t input_count() const {
    size_t count = 0;
    check(api_, api_.KernelContext_GetInputCount(&context_, &count));
    return count;
  }

  // Whether the node has this input. An empty tensor is one, though it may have no address.
  bool has(size_t index) const { return value_of(index) != nullptr; }

  // The shape alone; empty for an optional input that the node leaves out.
  Shape shape(size_t index) const {
    const OrtValue* value = value_of(index);
    return value == nullptr ? Shape{} : shape_of(*value);
  }

  // The address alone, which takes far less time to get than the shape.
  template <class T>
  const T* data(size_t index) const {
    const OrtValue* value = value_of(index);
    return value == nullptr ? nullptr
                            : static_cast<const T*>(data_of(const_cast<OrtValue*>(value)));
  }

  template <class T>
  T* output(size_t index, const Shape& shape) const {
    OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetOutput(&context_, index, shape.data(), shape.size(), &value));
    return static_cast<T*>(data_of(value));
  }

  // Calls body(i) for i in [0, total) on the session's own threads, so `intra_op_num_threads`
  // holds. The body is noexcept: nobody could catch on a pool thread.
  template <class Body>
  void parallel_for(size_t total, const Body& body) const {
    static_assert(std::is_nothrow_invocable_v<const Body&, size_t>, "mark the loop body noexcept");
    const auto call = [](void* data, size_t index) { (*static_cast<const Body*>(data))(index); };
    constexpr size_t kLetOrtChoose = 0;
    void* data = const_cast<Body*>(&body);
    check(api_, api_.KernelContext_ParallelFor(&context_, call, total, kLetOrtChoose, data));
  }

  // Says which op, which input, what was found and what was expected.
  [[noreturn]] void reject(size_t index, const std::string& found,
                           const std::string& expected) const {
    reject_named(inputs_[index].name, found, expected);
  }

  // The same for an input of a variadic operand, which has a name of its own.
  [[noreturn]] void reject_named(const std::string& name, const std::string& found,
                                 const std::string& expected) const {
    throw Error(ORT_INVALID_ARGUMENT, std::string(op_) + ": input '" + name + "': found " + found +
                                          ", expected " + expected);
  }

 private:
  const OrtValue* value_of(size_t index) const {
    const OrtValue* value = nullptr;
    check(api_, api_.KernelContext_GetInput(&context_, index, &value));
    return value;
  }

  Shape shape_of(const OrtValue& value) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_, api_.GetTensorTypeAndShape(&value, &info));
    size_t rank = 0;
    OrtStatus* status = api_.GetDimensionsCount(info, &rank);
    Shape shape(rank);
    if (status == nullptr) status = api_.GetDimensions(info, shape.data(), rank);
    api_.ReleaseTensorTypeAndShapeInfo(info);
    check(api_, status);
    return shape;
  }

  void* data_of(OrtValue* value) const {
    void* data = nullptr;
    check(api_, api_.GetTensorMutableData(value, &data));
    return data;
  }

  const OrtApi& api_;
  OrtKernelContext& context_;
  const char* op_;
  const Port* inputs_;
};

}  // namespace gptoss
