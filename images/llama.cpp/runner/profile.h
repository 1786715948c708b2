// Time per operator, measured by the scheduler's callback around every node of the graph.
#pragma once

#include "events.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>

struct ggml_tensor;

namespace melt {

// A profiled run computes node by node: shares between operators mean something, throughput does not.
class OperatorProfile {
public:
    enum class Phase { none, prefill, generation };

    void enter(Phase next) { phase = next; }

    // The callback: before a node is computed (`ask`: is it wanted?) and after it. Always returns true after it.
    bool on_node(const ggml_tensor * node, bool ask);
    static bool callback(ggml_tensor * node, bool ask, void * profile);

    // One `op` event per phase and operator.
    void write(Events & events) const;

private:
    struct Total {
        int64_t count = 0;
        int64_t ns = 0;
    };
    Phase phase = Phase::none;
    int64_t begin = 0;
    std::array<std::map<std::string, Total>, 2> totals;  // prefill, generation
};

}  // namespace melt
