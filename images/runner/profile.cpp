#include "profile.h"

namespace melt {
namespace {

constexpr int64_t detailed_call = 0;  // of each phase; all calls would be too many to write down

}  // namespace

void OperatorProfile::add(int64_t ns, const std::vector<Operation> & operations) {
    if (phase == Phase::none) {
        return;
    }
    Totals & to = totals[phase == Phase::prefill ? 0 : 1];
    for (const Operation & each : operations) {
        to.operators[{each.name, each.module}].add(each.ns);
    }
    if (to.decoding.count == detailed_call) {
        to.nodes = operations;
    }
    to.decoding.add(ns);
}

void OperatorProfile::write(Events & events) const {
    const char * const phases[] = {"prefill", "generation"};
    for (size_t i = 0; i < totals.size(); ++i) {
        if (totals[i].operators.empty()) {
            continue;
        }
        const Total & decoding = totals[i].decoding;
        events.add("decoding", {{"phase", phases[i]}, {"count", decoding.count}, {"ns", decoding.ns}});
        for (const auto & [what, total] : totals[i].operators) {
            events.add("op", {{"phase", phases[i]},
                              {"name", what.first},
                              {"module", what.second},
                              {"count", total.count},
                              {"ns", total.ns}});
        }
        for (const Operation & node : totals[i].nodes) {
            events.add("node", {{"phase", phases[i]},
                                {"name", node.name},
                                {"module", node.module},
                                {"begin", node.begin},
                                {"ns", node.ns}});
        }
    }
}

}  // namespace melt
