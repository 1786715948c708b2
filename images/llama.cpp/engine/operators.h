// What llama.cpp computes, node by node, as its scheduler's callback sees it.
#pragma once

#include "engine.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

struct ggml_tensor;

namespace melt {

// The names that tell what a node is, copied while the node exists.
struct NodeNames {
    const char * op;
    std::array<char, 64> node;
    std::array<std::array<char, 64>, 2> sources;
};

// Not nodes that only look at memory in another way: nothing is computed, nothing is worth a clock reading.
bool computes(const ggml_tensor * node);
// What an operator belongs to, as `Operation` has it.
std::string module_of(const ggml_tensor * node);
// Whether its first operand is a weight.
bool uses_weight(const ggml_tensor * node);

class Operators {
public:
    // Before a node is computed (`ask`: is it wanted?) and after it; goes on after it in any case.
    static bool callback(ggml_tensor * node, bool ask, void * operators);

    // What was computed since the last call. Names are made here and not in between, where it would be part of the decoder's
    // time.
    std::vector<Operation> take();

private:
    struct Computed {
        NodeNames names;
        int64_t begin;
        int64_t ns;
    };

    int64_t begin = 0;
    std::vector<Computed> computed;
};

}  // namespace melt
