// A model's folder: weights in the files of MLC, the code that was compiled for them, tokens, and what they are.
#pragma once

#include "failure.h"

#include <cstdint>
#include <string>
#include <vector>

namespace melt {

// What model.json says.
struct Shape {
    int64_t layers, kv_heads, head, vocabulary, context, parameters;
};

struct ModelFolder {
    // Look at everything that TVM would read beyond its end: Failure(model).
    explicit ModelFolder(const std::string & path);

    Shape shape;
    std::vector<std::string> weights;  // names, in the order in which the model's functions take them
    uint64_t bytes = 0;
};

}  // namespace melt
