// What the engine calls of ONNX Runtime's C API. The library hands out a table of functions to which every version only appends, so
// that a function is its place in the table; wheels come without a header.
#pragma once

#include "failure.h"

#include <cstddef>
#include <cstdint>
#include <string>

struct OrtEnv;
struct OrtMemoryInfo;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtValue;

namespace melt {

enum class ElementType : int { floats = 1, int32 = 6, int64 = 7 };

class Ort {
public:
    // Load the library, of the bundle or as the loader finds it by its name: Failure(model).
    explicit Ort(const char * library);

    // Throws a Failure with what went wrong, where something did.
    void check(OrtStatus * status, ExitCode code) const;

    std::string version;

    OrtStatus * (*create_env)(int level, const char * id, OrtEnv **);
    OrtStatus * (*create_session)(const OrtEnv *, const char * path, const OrtSessionOptions *, OrtSession **);
    OrtStatus * (*run)(OrtSession *, const OrtRunOptions *, const char * const * input_names, const OrtValue * const * inputs,
                       size_t input_count, const char * const * output_names, size_t output_count, OrtValue ** outputs);
    OrtStatus * (*create_session_options)(OrtSessionOptions **);
    OrtStatus * (*set_graph_optimization)(OrtSessionOptions *, int level);
    OrtStatus * (*set_intra_op_threads)(OrtSessionOptions *, int count);
    OrtStatus * (*set_inter_op_threads)(OrtSessionOptions *, int count);
    OrtStatus * (*add_config)(OrtSessionOptions *, const char * key, const char * value);
    OrtStatus * (*create_run_options)(OrtRunOptions **);
    OrtStatus * (*enable_run_profiling)(OrtRunOptions *, const char * prefix);
    OrtStatus * (*create_memory_info)(int allocator, int memory, OrtMemoryInfo **);
    OrtStatus * (*create_tensor_of)(const OrtMemoryInfo *, void * data, size_t size, const int64_t * shape, size_t dimensions,
                                    ElementType, OrtValue **);
    void (*release_env)(OrtEnv *);
    void (*release_memory_info)(OrtMemoryInfo *);
    void (*release_run_options)(OrtRunOptions *);
    void (*release_session)(OrtSession *);
    void (*release_session_options)(OrtSessionOptions *);
    void (*release_value)(OrtValue *);
    const char * (*build_info)();

private:
    const char * (*error_message)(const OrtStatus *);
    void (*release_status)(OrtStatus *);
};

}  // namespace melt
