// A look at a model file before the framework sees it.
#pragma once

#include <cstdint>
#include <string>

namespace melt {

// Throws Failure(model) where `path` is no GGUF file, is cut short, or names tensor types that this framework lacks.
// The framework itself answers some such files with abort() or, once mapped, with SIGBUS. Returns the file's size.
uint64_t check_gguf(const std::string & path);

}  // namespace melt
