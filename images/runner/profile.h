// Time per operator, of a run that an engine computes operator by operator.
#pragma once

#include "engine.h"
#include "events.h"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace melt {

// A profiled run stops after every operator: shares between operators mean something, throughput does not.
class OperatorProfile {
public:
    enum class Phase { none, prefill, generation };

    void enter(Phase next) { phase = next; }

    // What was computed within one call of the decoder, and how long all of it took; forgotten outside of a phase.
    void add(int64_t ns, const std::vector<Operation> & operations);

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
    struct Totals {
        Total decoding;
        std::map<std::pair<std::string, std::string>, Total> operators;  // by name and module
        std::vector<Operation> nodes;
    };

    Phase phase = Phase::none;
    std::array<Totals, 2> totals;  // prefill, generation
};

}  // namespace melt
