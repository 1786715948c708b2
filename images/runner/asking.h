// Conversations that the engine of another device holds: this one puts the prompts and waits.
#pragma once

#include "events.h"
#include "request.h"

namespace melt {

// Hold the conversations of a request that has `ask`. Throws the Failure of the step that is being taken, or Stopped.
void ask(const Request & request, Events & events);

}  // namespace melt
