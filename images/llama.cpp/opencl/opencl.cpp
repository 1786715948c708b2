// OpenCL's functions, of the device's own library: a device without one is one without a GPU, and no program that does not start.
#include <CL/declared.h>

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace {

// The first call of all; llama.cpp takes its failure for a device without OpenCL.
cl_int CL_API_CALL no_platform(cl_uint, cl_platform_id *, cl_uint *) { return CL_INVALID_VALUE; }

void * open_library() {
    // Compiled kernels would else be kept in a folder of the device's, and one trial's load would be another's.
    setenv("GGML_OPENCL_KERNEL_CACHE_DIR", "off", 1);
    for (const char * name : {"libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so"}) {
        if (void * library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
            return library;
        }
    }
    std::fprintf(stderr, "OpenCL: no library: %s\n", dlerror());
    return nullptr;
}

}  // namespace

void * melt_opencl(const char * name) {
    static void * const library = open_library();
    if (library != nullptr) {
        return dlsym(library, name);
    }
    return std::strcmp(name, "clGetPlatformIDs") == 0 ? reinterpret_cast<void *>(no_platform) : nullptr;
}
