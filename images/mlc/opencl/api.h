// What is called of OpenCL, declared as far as it is used, and loaded when it is needed: every system has it elsewhere.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace melt::opencl {

using Handle = struct Anything *;  // a platform, device, context, queue, buffer, program or kernel

constexpr uint64_t all_devices = 0xFFFFFFFF, cpu_device = 1 << 1, gpu_device = 1 << 2, read_write = 1;
constexpr uint32_t platform_version = 0x0901, device_type = 0x1000, most_threads = 0x1004, device_name = 0x102B, driver_version = 0x102D,
                   device_extensions = 0x1030, build_log = 0x1183;

struct Api {
    int32_t (*GetPlatformIDs)(uint32_t, Handle *, uint32_t *);
    int32_t (*GetPlatformInfo)(Handle, uint32_t, size_t, void *, size_t *);
    int32_t (*GetDeviceIDs)(Handle, uint64_t, uint32_t, Handle *, uint32_t *);
    int32_t (*GetDeviceInfo)(Handle, uint32_t, size_t, void *, size_t *);
    Handle (*CreateContext)(const intptr_t *, uint32_t, const Handle *, void *, void *, int32_t *);
    Handle (*CreateCommandQueue)(Handle, Handle, uint64_t, int32_t *);
    Handle (*CreateBuffer)(Handle, uint64_t, size_t, void *, int32_t *);
    int32_t (*ReleaseMemObject)(Handle);
    Handle (*CreateProgramWithSource)(Handle, uint32_t, const char **, const size_t *, int32_t *);
    int32_t (*BuildProgram)(Handle, uint32_t, const Handle *, const char *, void *, void *);
    int32_t (*GetProgramBuildInfo)(Handle, Handle, uint32_t, size_t, void *, size_t *);
    Handle (*CreateKernel)(Handle, const char *, int32_t *);
    int32_t (*SetKernelArg)(Handle, uint32_t, size_t, const void *);
    int32_t (*EnqueueNDRangeKernel)(Handle, Handle, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t, const Handle *, Handle *);
    int32_t (*EnqueueReadBuffer)(Handle, Handle, uint32_t, size_t, size_t, void *, uint32_t, const Handle *, Handle *);
    int32_t (*EnqueueWriteBuffer)(Handle, Handle, uint32_t, size_t, size_t, const void *, uint32_t, const Handle *, Handle *);
    int32_t (*EnqueueCopyBuffer)(Handle, Handle, Handle, size_t, size_t, size_t, uint32_t, const Handle *, Handle *);
    int32_t (*Finish)(Handle);

    // Why it cannot be had; empty where it can.
    std::string load() {
        void * library = nullptr;
        for (const char * name : {"libOpenCL.so.1", "libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so",
                                  "/vendor/lib64/egl/libGLES_mali.so"}) {
            if (library == nullptr) {
                library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
            }
        }
        if (library == nullptr) {
            return "there is no libOpenCL";
        }
        std::string missing;
        const auto take = [&](auto & function, const char * name) {
            function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
            if (function == nullptr) {
                missing = std::string("libOpenCL has no ") + name;
            }
        };
#define MELT_TAKE(name) take(name, "cl" #name)
        MELT_TAKE(GetPlatformIDs), MELT_TAKE(GetPlatformInfo), MELT_TAKE(GetDeviceIDs), MELT_TAKE(GetDeviceInfo), MELT_TAKE(CreateContext);
        MELT_TAKE(CreateCommandQueue), MELT_TAKE(CreateBuffer), MELT_TAKE(ReleaseMemObject), MELT_TAKE(CreateProgramWithSource);
        MELT_TAKE(BuildProgram), MELT_TAKE(GetProgramBuildInfo), MELT_TAKE(CreateKernel), MELT_TAKE(SetKernelArg);
        MELT_TAKE(EnqueueNDRangeKernel), MELT_TAKE(EnqueueReadBuffer), MELT_TAKE(EnqueueWriteBuffer), MELT_TAKE(EnqueueCopyBuffer);
        MELT_TAKE(Finish);
#undef MELT_TAKE
        return missing;
    }
};

}  // namespace melt::opencl
