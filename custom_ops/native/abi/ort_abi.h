// The part of ONNX Runtime's C ABI that this library uses, declared by hand for API version 18.
//
// Why it exists: no pip wheel of ONNX Runtime ships its C headers, so a build from `pip install`
// has none. The ABI is small and stable: `OrtApi` is a table of function pointers that only ever
// grows, no release moves a slot, and GetApi(18) answers in every ONNX Runtime from 1.18 on. So the
// library links to nothing, and one binary serves all of them. Names and signatures are those of
// the official onnxruntime_c_api.h. A slot that we do not name is a gap; the assertions at the end
// pin every named one to its zero-based index in the official table.
#pragma once

#include <cstddef>
#include <cstdint>

constexpr uint32_t kOrtApiVersion = 18;

struct OrtCustomOpDomain;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;  // a null pointer means success
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

enum OrtErrorCode : int {
  ORT_OK = 0,
  ORT_FAIL = 1,
  ORT_INVALID_ARGUMENT = 2,
  ORT_RUNTIME_EXCEPTION = 6,
  ORT_NOT_IMPLEMENTED = 9,
};

enum ONNXTensorElementDataType : int {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 = 6,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 = 16,
};

enum OrtCustomOpInputOutputCharacteristic : int {
  INPUT_OUTPUT_REQUIRED = 0,
  INPUT_OUTPUT_OPTIONAL = 1,
  INPUT_OUTPUT_VARIADIC = 2,
};

enum OrtMemType : int { OrtMemTypeDefault = 0 };

extern "C" {

struct OrtCustomOp;

struct OrtApi {
  OrtStatus* (*CreateStatus)(OrtErrorCode code, const char* message);
  OrtErrorCode (*GetErrorCode)(const OrtStatus* status);
  const char* (*GetErrorMessage)(const OrtStatus* status);
  void* gap_3[23];
  OrtStatus* (*CreateCustomOpDomain)(const char* name, OrtCustomOpDomain** out);
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  void* gap_29[22];
  OrtStatus* (*GetTensorMutableData)(OrtValue* value, void** out);
  void* gap_52[8];
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info,
                                     ONNXTensorElementDataType* out);
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t count);
  void* gap_63[2];
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);
  void* gap_66[19];
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name,
                                             float* out);
  OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name,
                                             int64_t* out);
  // With a null `out`, sets the size alone, which counts the terminating zero.
  OrtStatus* (*KernelInfoGetAttribute_string)(const OrtKernelInfo* info, const char* name,
                                              char* out, size_t* size);
  OrtStatus* (*KernelContext_GetInputCount)(const OrtKernelContext* context, size_t* out);
  void* gap_89[1];
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index,
                                       const OrtValue** out);
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index,
                                        const int64_t* dimensions, size_t rank, OrtValue** out);
  void* gap_92[1];
  void (*ReleaseStatus)(OrtStatus* status);
  void* gap_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);
  void* gap_100[1];
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain* domain);
  void* gap_102[135];
  OrtStatus* (*HasSessionConfigEntry)(const OrtSessionOptions* options, const char* key, int* out);
  OrtStatus* (*GetSessionConfigEntry)(const OrtSessionOptions* options, const char* key,
                                      char* value, size_t* size);
  void* gap_239[10];
  OrtStatus* (*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo* info, size_t index,
                                                  int* is_constant, const OrtValue** out);
  void* gap_250[24];
  OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext* context,
                                          void (*body)(void* data, size_t index), size_t total,
                                          size_t batches, void* data);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null when this ONNX Runtime is older than `version`
  const char* (*GetVersionString)();
};

// One operator. ONNX Runtime keeps the pointer, so the object outlives every session.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char* (*GetName)(const OrtCustomOp* op);
  const char* (*GetExecutionProviderType)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp* op);
  void (*KernelCompute)(void* kernel, OrtKernelContext* context);
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp* op,
                                                                 size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp* op,
                                                                  size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp* op, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp* op);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp* op);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                               void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext* context);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp* op, OrtShapeInferContext* context);
  int (*GetStartVersion)(const OrtCustomOp* op);
  int (*GetEndVersion)(const OrtCustomOp* op);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};

}  // extern "C"

namespace gptoss::abi {

constexpr size_t slot(size_t index) { return index * sizeof(void*); }

static_assert(sizeof(void*) == 8, "the slots are counted for 64-bit targets");
static_assert(offsetof(OrtApi, CreateStatus) == slot(0));
static_assert(offsetof(OrtApi, GetErrorCode) == slot(1));
static_assert(offsetof(OrtApi, GetErrorMessage) == slot(2));
static_assert(offsetof(OrtApi, CreateCustomOpDomain) == slot(26));
static_assert(offsetof(OrtApi, CustomOpDomain_Add) == slot(27));
static_assert(offsetof(OrtApi, AddCustomOpDomain) == slot(28));
static_assert(offsetof(OrtApi, GetTensorMutableData) == slot(51));
static_assert(offsetof(OrtApi, GetTensorElementType) == slot(60));
static_assert(offsetof(OrtApi, GetDimensionsCount) == slot(61));
static_assert(offsetof(OrtApi, GetDimensions) == slot(62));
static_assert(offsetof(OrtApi, GetTensorTypeAndShape) == slot(65));
static_assert(offsetof(OrtApi, KernelInfoGetAttribute_float) == slot(85));
static_assert(offsetof(OrtApi, KernelInfoGetAttribute_int64) == slot(86));
static_assert(offsetof(OrtApi, KernelInfoGetAttribute_string) == slot(87));
static_assert(offsetof(OrtApi, KernelContext_GetInputCount) == slot(88));
static_assert(offsetof(OrtApi, KernelContext_GetInput) == slot(90));
static_assert(offsetof(OrtApi, KernelContext_GetOutput) == slot(91));
static_assert(offsetof(OrtApi, ReleaseStatus) == slot(93));
static_assert(offsetof(OrtApi, ReleaseTensorTypeAndShapeInfo) == slot(99));
static_assert(offsetof(OrtApi, ReleaseCustomOpDomain) == slot(101));
static_assert(offsetof(OrtApi, HasSessionConfigEntry) == slot(237));
static_assert(offsetof(OrtApi, GetSessionConfigEntry) == slot(238));
static_assert(offsetof(OrtApi, KernelInfoGetConstantInput_tensor) == slot(249));
static_assert(offsetof(OrtApi, KernelContext_ParallelFor) == slot(274));
static_assert(offsetof(OrtCustomOp, CreateKernel) == slot(1));
static_assert(offsetof(OrtCustomOp, ReleaseAliasMap) == slot(25));
static_assert(sizeof(OrtCustomOp) == slot(26), "a version word and 25 pointers");

}  // namespace gptoss::abi
