// The golden vectors of a package: small cases from the reference with which a client proves
// itself.
#pragma once

#include <string>
#include <vector>

#include "json.h"
#include "session.h"

namespace gptoss {

struct CaseVerdict {
  std::string name;
  bool passed = false;
  size_t positions = 0;      // whose logits were compared
  double max_abs = 0;        // the largest difference of a logit
  double logsumexp_abs = 0;  // and of a logsumexp
  size_t greedy_tokens = 0;  // that the case has
  size_t greedy_equal = 0;   // before the first difference
  std::string note;          // why the continuation ended early
};

struct Verdict {
  bool passed = false;
  double limit = 0;  // of both differences
  double seconds = 0;
  std::vector<CaseVerdict> cases;

  std::string table(const Session& session) const;  // for people
  JsonText document(const Session& session) const;  // as clients/README.md describes it
};

// Runs golden/golden.json.
Verdict verify(const Session& session);

}  // namespace gptoss
