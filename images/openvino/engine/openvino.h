// What the engine calls of OpenVINO's C API, by name; the library is loaded and not linked.
#pragma once

#include "failure.h"

#include <cstddef>
#include <cstdint>
#include <string>

struct ov_compiled_model;
struct ov_core;
struct ov_infer_request;
struct ov_model;
struct ov_tensor;

namespace melt {

// Structures and numbers as the library has them.
enum class ElementType : int { int32 = 9 };
enum class Status : int { ok = 0 };
struct Sizes {
    int64_t dimensions;
    int64_t * each;
};
struct Property {
    const char * key;
    const char * value;
};
struct Version {
    const char * build;
    const char * description;
};
struct Measured {
    enum class State : int { not_run, optimized_out, executed } state;
    int64_t real_us, cpu_us;
    const char * node;
    const char * how;
    const char * kind;
};
struct AllMeasured {
    Measured * each;
    size_t count;
};

class OpenVino {
public:
    // Load the library, by the name under which the loader finds it: Failure(model).
    explicit OpenVino(const char * library);

    // Throws a Failure with what went wrong, where something did.
    void check(Status status, ExitCode code) const;
    // A property of a compiled model, as text: Failure(model).
    std::string property(const ov_compiled_model * model, const char * key) const;

    std::string version;

    Status (*create_core)(ov_core **);
    Status (*read_model)(const ov_core *, const char * graph, const char * weights, ov_model **);
    Status (*compile)(const ov_core *, const ov_model *, const char * device, size_t count, const Property *, ov_compiled_model **);
    Status (*create_request)(const ov_compiled_model *, ov_infer_request **);
    Status (*create_tensor_of)(ElementType, Sizes, void * data, ov_tensor **);
    Status (*set_input)(ov_infer_request *, size_t place, const ov_tensor *);
    Status (*infer)(ov_infer_request *);
    Status (*get_output)(const ov_infer_request *, size_t place, ov_tensor **);
    Status (*get_data)(const ov_tensor *, void **);
    Status (*get_byte_size)(const ov_tensor *, size_t *);
    Status (*get_measured)(const ov_infer_request *, AllMeasured *);
    void (*release_measured)(AllMeasured *);
    void (*release_core)(ov_core *);
    void (*release_model)(ov_model *);
    void (*release_compiled)(ov_compiled_model *);
    void (*release_request)(ov_infer_request *);
    void (*release_tensor)(ov_tensor *);

private:
    Status (*get_property)(const ov_compiled_model *, const char * key, char ** value);
    Status (*get_version)(Version *);
    const char * (*last_message)();
    void (*release_text)(const char *);
    void (*release_version)(Version *);
};

}  // namespace melt
