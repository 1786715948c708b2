// Load pulses that an external power meter sees, so that its clock can be aligned with this device's.
#pragma once

#include "events.h"
#include "request.h"

namespace melt {

// Keep `threads` cores busy in the planned pattern, with a `pulse_begin` and a `pulse_end` event around each pulse;
// throws Stopped when a signal asks for it.
void give_sync_mark(const SyncMark & mark, int32_t threads, Events & events);

}  // namespace melt
