// The part of ONNX Runtime's C API that the addon calls, declared by hand: onnxruntime-node ships
// no header. The API is a table of function pointers that only grows, so no slot ever moves, and
// GetApi(18) answers in every ONNX Runtime from 1.18 on. Names and signatures are those of
// onnxruntime_c_api.h; what is not called is a gap.
#pragma once
#include <cstddef>
#include <cstdint>

struct OrtEnv;
struct OrtIoBinding;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;  // a null pointer means success
struct OrtValue;

struct OrtApi {
  void* gap_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);
  OrtStatus* (*CreateEnv)(int severity, const char* log_id, OrtEnv** out);
  void* gap_4[3];
  OrtStatus* (*CreateSession)(const OrtEnv*, const char* model, const OrtSessionOptions*,
                              OrtSession** out);
  void* gap_8[2];
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** out);
  void* gap_11[13];
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int threads);
  void* gap_25[24];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, size_t bytes,
                                               const int64_t* shape, size_t rank, int element_type,
                                               OrtValue** out);
  void* gap_50[19];
  OrtStatus* (*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo** out);
  void* gap_70[23];
  void (*ReleaseStatus)(OrtStatus*);
  void* gap_94[1];
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);
  void* gap_97[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);
  void* gap_101[29];
  OrtStatus* (*AddSessionConfigEntry)(OrtSessionOptions*, const char* key, const char* value);
  void* gap_131[2];
  OrtStatus* (*RunWithBinding)(OrtSession*, const void* run_options, const OrtIoBinding*);
  OrtStatus* (*CreateIoBinding)(OrtSession*, OrtIoBinding** out);
  void (*ReleaseIoBinding)(OrtIoBinding*);
  OrtStatus* (*BindInput)(OrtIoBinding*, const char* name, const OrtValue*);
  OrtStatus* (*BindOutput)(OrtIoBinding*, const char* name, const OrtValue*);
  void* gap_138[90];
  OrtStatus* (*RegisterCustomOpsLibrary_V2)(OrtSessionOptions*, const char* library);
};
static_assert(offsetof(OrtApi, RegisterCustomOpsLibrary_V2) == 228 * sizeof(void*),
              "counted by hand");

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null when this ONNX Runtime is older
};
