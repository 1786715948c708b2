// What TVM reads of a model's folder, looked at before: it would go on behind the end of a file.
#pragma once

#include "converted.h"

#include <string>
#include <vector>

namespace melt {

// The weights' names, in the order in which the model's functions take them; their files are counted. Failure(model) for files that are cut
// off, code among them, and for an index that leads out of them. What is in them is held against shapes by TVM itself.
std::vector<std::string> weights_of(Converted & folder);

}  // namespace melt
