#include "operators.h"

#include "clock.h"
#include "converted.h"

#include <algorithm>

namespace melt {
namespace {

constexpr int64_t ns_per_us = 1000;

}  // namespace

// One node computes after the other: when one began is when that before it had ended, and what is left is the executor's time.
void Operators::add(const ov_infer_request * request, int64_t begin) {
    const int64_t end = monotonic_ns();
    AllMeasured all{};
    api.check(api.get_measured(request, &all), ExitCode::decode);
    ++calls;
    int64_t place = begin;
    for (size_t i = 0; i < all.count; ++i) {
        const Measured & node = all.each[i];
        if (node.state != Measured::State::executed) {
            continue;
        }
        int64_t & sum = sums_us[node.node];
        const int64_t now = std::max(sum, node.real_us * calls), took = (now - sum) * ns_per_us;
        sum = now;
        found.push_back({node.kind, module_of(node.node), place, took});
        place += took;
    }
    api.release_measured(&all);
    found.push_back({"between operators", "", place, std::max<int64_t>(end - place, 0)});
}

}  // namespace melt
