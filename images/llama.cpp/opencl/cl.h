// In place of Khronos's own, which lies beside it: every function that llama.cpp calls is one that is looked for when it is first called,
// so that no program names a library of the device. called.h is made of llama.cpp's source.
#pragma once

#include <CL/declared.h>

#ifdef __cplusplus
void * melt_opencl(const char * name);

#define MELT_CALLED(name)                                                                \
    inline auto melt_##name() {                                                          \
        static const auto function = reinterpret_cast<decltype(&name)>(melt_opencl(#name)); \
        return function;                                                                 \
    }
#include <CL/called.h>
#endif
