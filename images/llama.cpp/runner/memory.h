// What the kernel says of this process's memory.
#pragma once

#include "events.h"

namespace melt {

// Fields of a `mem` event, in bytes; null where the kernel does not tell.
Events::Fields memory_fields(const char * phase);

}  // namespace melt
