// Hands the calls of cublas_v2.h on to the device's own cuBLAS, which is loaded when the first one comes: models whose
// weights are quantized may never need it.
#include "cublas_v2.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace {

[[noreturn]] void give_up() {
    std::fprintf(stderr, "melt-runner: cuBLAS is needed and cannot be used: %s; it comes with the CUDA libraries of JetPack\n",
                 dlerror());
    std::exit(1);
}

void * find(const char * symbol) {
    static void * const library = dlopen(MELT_CUBLAS_LIBRARY, RTLD_NOW);
    if (library == nullptr) {
        give_up();
    }
    void * found = dlsym(library, symbol);
    if (found == nullptr) {
        give_up();
    }
    return found;
}

}  // namespace

extern "C" {

#define MELT_DEFINE(name, symbol, parameters, arguments)                                                                        \
    cublasStatus_t melt_##name parameters {                                                                                     \
        static const auto function = reinterpret_cast<cublasStatus_t(*) parameters>(find(symbol));                              \
        return function arguments;                                                                                              \
    }
MELT_CUBLAS(MELT_DEFINE)

const char * melt_cublasGetStatusString(cublasStatus_t status) {
    static const auto function = reinterpret_cast<const char * (*) (cublasStatus_t)>(find("cublasGetStatusString"));
    return function(status);
}
}
