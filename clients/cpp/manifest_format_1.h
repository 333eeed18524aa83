// Manifests of format 1, which packages had before format 2.
#pragma once

#include "json.h"

namespace gptoss {

// A document of format 1 as one of format 2: its sizes stood in the model's configuration, and no
// layer of its cache kept its first tokens.
Json upgraded(const JsonPlace& manifest);

}  // namespace gptoss
