#include "ort.h"

#ifndef MELT_LINKED
#include <dlfcn.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <fstream>

#ifdef MELT_LINKED
extern "C" const void * OrtGetApiBase();
#endif

namespace melt {
namespace {

constexpr uint32_t api_version = 29;  // of release 1.29

// What the library exports: the table of a version of the API, and what version it is itself.
struct Base {
    const void * const * (*api)(uint32_t version);
    const char * (*version)();
};

#ifndef MELT_LINKED
// Where the library of the bundle is, by the name under which its program was started: on a device behind a link both are links to files
// elsewhere, so that a loader which follows them finds nothing there. Else the loader knows it.
std::string place_of(const std::string & library) {
    std::string program;
    std::getline(std::ifstream("/proc/self/cmdline"), program, '\0');
    const size_t folder = program.rfind('/') + 1;
    for (const char * place : {"lib/", "../lib/"}) {
        const std::string path = program.substr(0, folder) + place + library;
        if (folder > 0 && access(path.c_str(), R_OK) == 0) {
            return path;
        }
    }
    return library;
}

void * entry(const std::string & library) {
    // Not linked: the runner has a C++ library of its own, whose exceptions must not get into this one's.
    void * handle = dlopen(place_of(library).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        throw Failure(ExitCode::model, std::string("ONNX Runtime cannot be loaded: ") + dlerror());
    }
    return dlsym(handle, "OrtGetApiBase");
}
#else  // in the app for iPhones, where both have the system's C++ library
void * entry(const std::string &) { return reinterpret_cast<void *>(OrtGetApiBase); }
#endif

const Base & base_of(const std::string & library) {
    // It would send what it does to its makers, keep a data base in the user's folder, and die where /etc/machine-id is missing.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    const auto base = reinterpret_cast<const Base * (*)()>(entry(library));
    if (base == nullptr || base() == nullptr || base()->api(api_version) == nullptr) {
        throw Failure(ExitCode::model, library + " does not have version " + std::to_string(api_version) +
                                           " of ONNX Runtime's API");
    }
    return *base();
}

}  // namespace

Ort::Ort(const char * library) {
    const Base & base = base_of(library);
    version = base.version();
    const void * const * table = base.api(api_version);
    const auto take = [table](auto & function, size_t place) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(const_cast<void *>(table[place]));
    };
    take(error_message, 2);
    take(create_env, 3);
    take(create_session, 7);
    take(run, 9);
    take(create_session_options, 10);
    take(set_graph_optimization, 23);
    take(set_intra_op_threads, 24);
    take(set_inter_op_threads, 25);
    take(create_run_options, 39);
    take(create_tensor_of, 49);
    take(create_memory_info, 69);
    take(release_env, 92);
    take(release_status, 93);
    take(release_memory_info, 94);
    take(release_session, 95);
    take(release_value, 96);
    take(release_run_options, 97);
    take(release_session_options, 100);
    take(add_config, 130);
    take(build_info, 254);
    take(enable_run_profiling, 415);
}

void Ort::check(OrtStatus * status, ExitCode code) const {
    if (status != nullptr) {
        const std::string message = error_message(status);
        release_status(status);
        throw Failure(code, "ONNX Runtime: " + message);
    }
}

}  // namespace melt
