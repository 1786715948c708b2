// Doing nothing for a while.
#pragma once

#include <cstdint>

namespace melt {

// Sleep until a moment on the monotonic clock (ns); throws Stopped when a signal asks for it.
void pause_until(int64_t t);
void pause_for_ms(int64_t duration);

}  // namespace melt
