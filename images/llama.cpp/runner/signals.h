// Being stopped from outside, and a framework that gives up by abort().
#pragma once

#include "failure.h"

namespace melt {

// From here on SIGTERM and SIGINT only ask for a stop, and abort() ends in an `error` event on `events` (a descriptor).
void install_signal_handlers(int events);

// Number of the signal that asked for a stop, or 0.
int stop_signal();

// Thrown where work stops because of stop_signal(). Not a Failure: nothing went wrong.
struct Stopped {
    int signal;
};
void throw_if_stopped();

// What an abort() from now on means.
void set_abort_code(ExitCode code);

}  // namespace melt
