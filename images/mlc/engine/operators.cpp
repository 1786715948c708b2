#include "operators.h"

#include "clock.h"

namespace melt {
namespace {

const std::string separator = "__";  // between an operator and what it belongs to

}  // namespace

void Operators::start(const Tvm & tvm, const Value & machine) {
    watcher = [this](const std::string & name, bool before) { note(name, before); };
    tvm.call(tvm.method(machine, "set_instrument"), {tvm.callback(watcher)}, ExitCode::context);
}

void Operators::begin() { place = monotonic_ns(); }

void Operators::end() {
    if (watcher) {
        found.push_back({"virtual machine", "", place, monotonic_ns() - place});
    }
}

void Operators::note(const std::string & name, bool before) {
    const size_t end = name.find(separator);
    if (end == std::string::npos) {
        return;  // one of the machine's own
    }
    const int64_t now = monotonic_ns();
    if (before) {
        began = now;
        return;
    }
    // Where forms of one operator differ, TVM numbers them.
    const std::string module = name.substr(end + separator.size());
    found.push_back({"virtual machine", "", place, began - place});
    found.push_back({name.substr(0, end), module.substr(0, module.find_last_not_of("0123456789") + 1), began, now - began});
    place = now;
}

}  // namespace melt
