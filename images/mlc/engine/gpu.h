// A model whose operators are OpenCL's kernels: the device, TVM's paged keys and values in it, and what goes there and back.
#pragma once

#include "engine.h"
#include "tvm.h"

namespace melt {

class Gpu {
public:
    static constexpr int64_t kind = 4;  // OpenCL among TVM's kinds of devices

    // Load the bundle's OpenCL: Failure(model) where there is no device.
    Gpu(const Tvm & tvm, int64_t threads);
    ~Gpu();

    // Make room for keys and values by the model's own function, and have all kernels compiled.
    void open(const Value & machine, const Value & weights, const Setup & setup);
    // The logits of the last token, here.
    Value compute(const Value & function, const std::vector<Token> & tokens, const Value & weights, ExitCode step) const;
    void clear(ExitCode step) const;
    // What it computes on, for the `effective` event.
    void describe(Json::Object & facts) const;

private:
    std::string about(const char * what) const;
    Value shape(std::vector<Value> sizes) const;
    void check(ExitCode step) const;

    const Tvm & tvm;
    std::string scratch;  // where the driver may compile
    Value cache;
};

}  // namespace melt
