// The page cache, in which a model's files may lie before they are loaded, or not.
#pragma once

#include "request.h"

#include <optional>
#include <string>

namespace melt {

// Drop a file, or the files of a folder, from the page cache, or read them into it, as asked. The share of their bytes that is
// in it then, to 1/256 of a file: Failure(model).
double prepare_cache(const std::string & model, Caching caching);

// As requests call it; nothing for `as_is`.
std::optional<std::string> caching_name(Caching caching);

}  // namespace melt
