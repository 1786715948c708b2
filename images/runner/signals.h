// Being stopped from outside, and a framework that aborts or crashes.
#pragma once

#include "failure.h"

namespace melt {

// From here on SIGTERM and SIGINT only ask for a stop, and what would kill this process from within (abort(), a wrong
// memory access, an instruction that the CPU lacks) ends it with an `error` event on `events` (a descriptor).
void install_signal_handlers(int events);

// Number of the signal that asked for a stop, or 0.
int stop_signal();

// Thrown where work stops because of stop_signal(). Not a Failure: nothing went wrong.
struct Stopped {
    int signal;
};
void throw_if_stopped();

// What it means when something unforeseen ends the run: the status of the step that is being taken.
void enter_step(ExitCode code);
ExitCode current_step();

}  // namespace melt
