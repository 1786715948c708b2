// The operators of single calls by OpenVINO's counters. They tell of every node the mean of all calls so far, in whole microseconds:
// from one call to the next a sum is followed, which errs by a microsecond for each call at most, however many there are.
#pragma once

#include "engine.h"
#include "openvino.h"

#include <map>

namespace melt {

class Operators {
public:
    explicit Operators(const OpenVino & api) : api(api) {}

    // After every call of a request whose nodes are counted, which began then.
    void add(const ov_infer_request * request, int64_t begin);
    // What was added since the last call of this.
    std::vector<Operation> take() { return std::exchange(found, {}); }

private:
    const OpenVino & api;
    int64_t calls = 0;
    std::map<std::string, int64_t> sums_us;  // by node
    std::vector<Operation> found;
};

}  // namespace melt
