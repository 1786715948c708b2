// The operators of a model, as TVM's virtual machine calls them.
#pragma once

#include "engine.h"
#include "tvm.h"

namespace melt {

class Operators {
public:
    // From here on the calls of `machine` are watched.
    void start(const Tvm & tvm, const Value & machine);
    // The model's function is called, or has returned: what operators do not explain is the virtual machine's own time.
    void begin();
    void end();
    // What was noted since the last call of this.
    std::vector<Operation> take() { return std::exchange(found, {}); }

private:
    void note(const std::string & name, bool before);

    Tvm::Watcher watcher;
    std::vector<Operation> found;
    int64_t place = 0;  // until when time is explained
    int64_t began = 0;  // of the operator that runs
};

}  // namespace melt
