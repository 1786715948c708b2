// The operators of single runs by ONNX Runtime's profiler, which writes a file for each run that asks for it.
#pragma once

#include "engine.h"
#include "ort.h"

namespace melt {

class Operators {
public:
    explicit Operators(const Ort & ort) : ort(ort) {}
    ~Operators();

    // From here on runs are profiled, into files of a folder of their own: Failure(context).
    void start();
    // For a run that begins now; null where nothing is profiled.
    const OrtRunOptions * next();
    // Read, and remove, what the runs since the last call of this left.
    std::vector<Operation> take();

private:
    const Ort & ort;
    std::string folder;
    OrtRunOptions * options = nullptr;
    std::vector<int64_t> begins;  // of these runs, which have their numbers as folders
};

}  // namespace melt
