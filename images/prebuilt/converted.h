// What all converted models have in common: a folder with the engine's own files, the tokens and some facts, and names of nodes that begin
// with a layer's.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

namespace melt {

struct Converted {
    // Failure(model) where the folder does not hold all of a model: the engine's files and the two below.
    Converted(const std::string & path, std::initializer_list<const char *> files);

    std::string vocabulary_file;
    uint64_t bytes = 0;  // of all files
    int64_t layers, kv_heads, head, vocabulary, context, parameters;
};

// What a node belongs to, the same in every layer: its name without the number of that.
std::string module_of(const std::string & node);

}  // namespace melt
