// Time per operator, measured by the scheduler's callback around every node of the graph.
#pragma once

#include "events.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

struct ggml_tensor;

namespace melt {

// The names that tell what a node is, copied while the node exists.
struct NodeNames {
    const char * op;
    std::array<char, 64> node;
    std::array<std::array<char, 64>, 2> sources;
};


// A profiled run computes node by node: shares between operators mean something, throughput does not.
class OperatorProfile {
public:
    enum class Phase { none, prefill, generation };

    void enter(Phase next) { phase = next; }

    // The callback: before a node is computed (`ask`: is it wanted?) and after it. Always returns true after it.
    bool on_node(const ggml_tensor * node, bool ask);
    static bool callback(ggml_tensor * node, bool ask, void * profile);

    // Time within one call of the framework's decoder, of which operators are a part. What was computed is counted here
    // and not in between, where it would be part of the decoder's time.
    void on_decode(int64_t ns);

    // Per phase one `decoding` event, one `op` event for each operator of each module, and the nodes of one call.
    void write(Events & events) const;

private:
    struct Total {
        int64_t count = 0;
        int64_t ns = 0;
        void add(int64_t more) {
            count += 1;
            ns += more;
        }
    };
    using Operator = std::pair<std::string, std::string>;  // of the framework, and its module
    struct Node {
        Operator what;
        int64_t begin;
        int64_t ns;
    };
    struct Computed {
        NodeNames names;
        int64_t begin;
        int64_t ns;
    };
    struct Totals {
        Total decoding;
        std::map<Operator, Total> operators;
        std::vector<Node> nodes;
    };
    Totals & current() { return totals[phase == Phase::prefill ? 0 : 1]; }

    Phase phase = Phase::none;
    int64_t begin = 0;
    std::vector<Computed> computed;  // of the call that runs
    std::array<Totals, 2> totals;  // prefill, generation
};

}  // namespace melt
