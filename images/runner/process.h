// How the kernel treats this process, wherever it was started: what of that changes a speed.
#pragma once

#include "json.h"

namespace melt {

// For the `process` event; what the system does not tell is left out.
Json::Object process_facts();

}  // namespace melt
