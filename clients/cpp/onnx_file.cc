// An ONNX file is a message of protocol buffers: a sequence of fields, each with a number and a
// value, https://protobuf.dev/programming-guides/encoding. What this reader refuses is stricter
// than the encoding, so that no other reader can see another file in the same bytes.
#include "onnx_file.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "text.h"

namespace gptoss {
namespace {

constexpr int kDepthLimit = 100;             // messages inside each other
constexpr int64_t kFieldsLimit = 1'000'000;  // each takes ONNX Runtime some hundred bytes

enum class Kind { Model, Graph, Node, Attribute, Tensor, Sparse, Function, Training };

// Every field in which a tensor can be, of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
struct Part {
  Kind message;
  uint64_t number;
  Kind kind;
};
constexpr Part kParts[] = {
    {Kind::Model, 7, Kind::Graph},          // graph
    {Kind::Model, 20, Kind::Training},      // training_info
    {Kind::Model, 25, Kind::Function},      // functions
    {Kind::Graph, 1, Kind::Node},           // node
    {Kind::Graph, 5, Kind::Tensor},         // initializer
    {Kind::Graph, 15, Kind::Sparse},        // sparse_initializer
    {Kind::Node, 5, Kind::Attribute},       // attribute
    {Kind::Attribute, 5, Kind::Tensor},     // t
    {Kind::Attribute, 6, Kind::Graph},      // g
    {Kind::Attribute, 10, Kind::Tensor},    // tensors
    {Kind::Attribute, 11, Kind::Graph},     // graphs
    {Kind::Attribute, 22, Kind::Sparse},    // sparse_tensor
    {Kind::Attribute, 23, Kind::Sparse},    // sparse_tensors
    {Kind::Sparse, 1, Kind::Tensor},        // values
    {Kind::Sparse, 2, Kind::Tensor},        // indices
    {Kind::Function, 7, Kind::Node},        // node
    {Kind::Function, 11, Kind::Attribute},  // attribute_proto
    {Kind::Training, 1, Kind::Graph},       // initialization
    {Kind::Training, 2, Kind::Graph},       // algorithm
};
constexpr uint64_t kTensorName = 8;
constexpr uint64_t kTensorExternalData = 13;
constexpr uint64_t kTensorDataLocation = 14;
constexpr uint64_t kEntryKey = 1;
constexpr uint64_t kEntryValue = 2;

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // of a number
  std::string_view bytes;  // of anything else
  bool is_number = false;
};

// The fields of a message, one after the other.
class Fields {
 public:
  explicit Fields(std::string_view message) : message_(message) {}

  bool next(Field& field) {
    if (message_.empty()) return false;
    constexpr uint64_t kKeyLimit = uint64_t{1} << 32;  // other readers cut longer ones off
    const uint64_t key = varint();
    if (key < 8 || key >= kKeyLimit) throw Error("the field key " + std::to_string(key));
    field = {key >> 3, 0, {}, false};
    switch (key & 7) {
      case 0:
        field.value = varint();
        field.is_number = true;
        break;
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        throw Error("wire type " + std::to_string(key & 7));
    }
    return true;
  }

 private:
  // Seven bits a byte, the lowest first; all but the last byte have their highest bit set.
  uint64_t varint() {
    uint64_t number = 0;
    for (int i = 0; i < 10; ++i) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      if (i == 9 && byte > 1) break;
      number |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
      if (byte < 0x80) return number;
    }
    throw Error("a number of more than 64 bits");
  }

  std::string_view take(uint64_t size) {
    if (size > message_.size()) throw Error("the end inside a field");
    const std::string_view bytes = message_.substr(0, size);
    message_.remove_prefix(size);
    return bytes;
  }

  std::string_view message_;
};

std::string_view bytes_of(const Field& field) {
  if (field.is_number) throw Error("the number " + std::to_string(field.value) + " for a message");
  return field.bytes;
}

// One entry of TensorProto.external_data: a key and its value, each at most once.
std::pair<std::string, std::string> entry_of(std::string_view message) {
  std::map<uint64_t, std::string> texts;
  Fields fields(message);
  for (Field field; fields.next(field);) {
    const bool is_new = texts.emplace(field.number, bytes_of(field)).second;
    if (!is_new) throw Error("an entry of external data with a field twice");
  }
  return {texts[kEntryKey], texts[kEntryValue]};
}

int64_t bytes_from(const std::string& digits) {
  int64_t count = -1;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, count);
  if (error != std::errc() || stop != end || count < 0) {
    throw Error("'" + digits + "' for a number of bytes");
  }
  return count;
}

// Appends a tensor whose data lie elsewhere; leaves others alone.
void add_if_external(std::string_view tensor, std::vector<ExternalTensor>& found) {
  std::map<std::string, std::string> entries;
  std::string name;
  bool is_external = false;
  Fields fields(tensor);
  for (Field field; fields.next(field);) {
    if (field.number == kTensorName) name = bytes_of(field);
    // Any location but 0, also one that another reader cuts off to 32 bits.
    if (field.number == kTensorDataLocation && !(field.is_number && field.value == 0)) {
      is_external = true;
    }
    if (field.number != kTensorExternalData) continue;
    is_external = true;
    const bool is_new = entries.insert(entry_of(bytes_of(field))).second;
    if (!is_new) throw Error("external data of tensor '" + name + "' with an entry twice");
  }
  if (!is_external) return;
  const size_t known =
      entries.count("location") + entries.count("offset") + entries.count("length");
  if (known != 3 || entries.size() != 3) {
    throw Error("external data of tensor '" + name + "' that are not location, offset and length");
  }
  const ByteRange range = {bytes_from(entries["offset"]), bytes_from(entries["length"])};
  found.push_back({name, entries["location"], range});
}

struct Findings {
  std::vector<ExternalTensor> tensors;
  int64_t fields = 0;
};

// Goes through a message and all in it that may hold tensors; `depth` messages are around it.
void walk(Kind kind, std::string_view message, int depth, Findings& findings) {
  if (depth > kDepthLimit) throw Error("more than 100 messages inside each other");
  if (kind == Kind::Tensor) {
    constexpr int kMainGraph = 2;  // a tensor in a graph in the model
    const size_t before = findings.tensors.size();
    add_if_external(message, findings.tensors);
    if (findings.tensors.size() > before && depth != kMainGraph) {
      throw Error("external data of a tensor that is no initializer of the main graph");
    }
    return;
  }
  int graphs = 0;
  Fields fields(message);
  for (Field field; fields.next(field);) {
    if (++findings.fields > kFieldsLimit) throw Error("more than 1000000 fields");
    for (const Part& part : kParts) {
      if (part.message != kind || part.number != field.number) continue;
      walk(part.kind, bytes_of(field), depth + 1, findings);
      if (kind == Kind::Model && part.kind == Kind::Graph) ++graphs;
    }
  }
  // Readers put the parts of several together.
  if (kind == Kind::Model && graphs != 1) throw Error(std::to_string(graphs) + " main graphs");
}

}  // namespace

std::vector<ExternalTensor> external_tensors(std::string_view model, const std::string& where) {
  Findings findings;
  try {
    // ONNX Runtime takes these bytes for its own format, whatever else they mean.
    const bool is_own = model.size() >= 8 && model.substr(4, 4) == "ORTM";
    if (is_own) throw Error("a model in ONNX Runtime's own format");
    walk(Kind::Model, model, 0, findings);
  } catch (const Error& error) {
    throw Error(where + ": found " + error.what() +
                ", expected an ONNX model of this project; export the package again");
  }
  return findings.tensors;
}

}  // namespace gptoss
