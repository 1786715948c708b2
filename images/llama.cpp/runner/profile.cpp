#include "profile.h"

#include "clock.h"
#include "ggml.h"

namespace melt {
namespace {

// Nodes that only look at memory in another way: nothing is computed, nothing is worth a clock reading.
bool computes(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_VIEW:
        case GGML_OP_RESHAPE:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return false;
        default:
            return true;
    }
}

}  // namespace

bool OperatorProfile::on_node(const ggml_tensor * node, bool ask) {
    if (ask) {
        begin = monotonic_ns();
        return phase != Phase::none && computes(node);
    }
    const int64_t end = monotonic_ns();
    Total & total = totals[phase == Phase::prefill ? 0 : 1][ggml_op_name(node->op)];
    total.count += 1;
    total.ns += end - begin;
    return true;
}

bool OperatorProfile::callback(ggml_tensor * node, bool ask, void * profile) {
    return static_cast<OperatorProfile *>(profile)->on_node(node, ask);
}

void OperatorProfile::write(Events & events) const {
    const char * const phases[] = {"prefill", "generation"};
    for (size_t i = 0; i < totals.size(); ++i) {
        for (const auto & [name, total] : totals[i]) {
            events.add("op", {{"phase", phases[i]}, {"name", name}, {"count", total.count}, {"ns", total.ns}});
        }
    }
}

}  // namespace melt
