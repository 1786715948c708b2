// What ends a run early: an exit status of docs/runner.md and a sentence for people.
#pragma once

#include <stdexcept>
#include <string>

namespace melt {

enum class ExitCode : int {
    ok = 0,
    bad_request = 2,
    model = 3,
    context = 4,
    decode = 5,
    events = 6,
};

class Failure : public std::runtime_error {
public:
    Failure(ExitCode code, const std::string & message) : std::runtime_error(message), code(code) {}

    const ExitCode code;
};

}  // namespace melt
