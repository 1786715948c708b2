// Which backend is to compute each operator, and how many bytes of what lie in which memory.
#pragma once

#include "json.h"

struct llama_context;

namespace melt {

// Asked of the scheduler that computes, for a whole step of a prompt and for one token; nothing where a build cannot ask it. To be
// called before anything is computed.
Json placement(llama_context * context);

}  // namespace melt
