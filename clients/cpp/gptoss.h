// Runs a gpt-oss package folder with ONNX Runtime: open, prefill, decode, sample. What goes wrong
// throws gptoss::Error, or Ort::Exception where ONNX Runtime says it.
#pragma once

#include "json.h"
#include "package.h"
#include "sampling.h"
#include "session.h"
#include "text.h"
#include "verify.h"
