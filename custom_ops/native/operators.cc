#include "operators.h"

#include "op.h"
#include "self_check.h"

namespace gptoss {

const std::vector<Domain>& domains() {
  static const CustomOp<SelfCheck> self_check;
  static const std::vector<Domain> table = {
      {kDomain, {}},
      {kSelfCheckDomain, {&self_check}},
  };
  return table;
}

}  // namespace gptoss
