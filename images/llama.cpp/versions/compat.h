// What the C API of 2026-10, for which engine.cpp is written, has and a version of before lacks. Included before everything else;
// features.cmake finds out what is missing.
#pragma once

#ifdef __cplusplus

#include "llama.h"

#if !MELT_HAS_LOAD_MODE
enum llama_load_mode {
    LLAMA_LOAD_MODE_NONE,
    LLAMA_LOAD_MODE_MMAP,
    LLAMA_LOAD_MODE_MLOCK,
    LLAMA_LOAD_MODE_MMAP_MLOCK,
    LLAMA_LOAD_MODE_DIRECT_IO,
    LLAMA_LOAD_MODE_AUTO,
};
#endif

#if !MELT_HAS_LAZY_MODE
enum llama_lazy_mode { LLAMA_LAZY_MODE_OFF, LLAMA_LAZY_MODE_AUTO, LLAMA_LAZY_MODE_ON };
#endif

#if !MELT_HAS_SPLIT_TENSOR
constexpr auto LLAMA_SPLIT_MODE_TENSOR = static_cast<llama_split_mode>(3);  // GPUs alone have any use for it
#endif

#if !MELT_HAS_LOAD_MODE || !MELT_HAS_LAZY_MODE

namespace melt_compat {

struct ModelParams : llama_model_params {
    ModelParams(const llama_model_params & params) : llama_model_params(params) {}
#if !MELT_HAS_LOAD_MODE
    llama_load_mode load_mode = LLAMA_LOAD_MODE_MMAP;
#endif
#if !MELT_HAS_LAZY_MODE
    llama_lazy_mode lazy_mode = LLAMA_LAZY_MODE_OFF;
#endif
};

// Null for what this version cannot do, which a model that is not loaded tells in its own words.
inline llama_model * load(const char * path, ModelParams params) {
#if !MELT_HAS_LOAD_MODE
    const llama_load_mode mode = params.load_mode;
    if (mode == LLAMA_LOAD_MODE_AUTO) {
        return nullptr;
    }
    params.use_mmap = mode == LLAMA_LOAD_MODE_MMAP || mode == LLAMA_LOAD_MODE_MMAP_MLOCK;
    params.use_mlock = mode == LLAMA_LOAD_MODE_MLOCK || mode == LLAMA_LOAD_MODE_MMAP_MLOCK;
    params.use_direct_io = mode == LLAMA_LOAD_MODE_DIRECT_IO;
#endif
#if !MELT_HAS_LAZY_MODE
    if (params.lazy_mode != LLAMA_LAZY_MODE_OFF) {
        return nullptr;
    }
#endif
    return llama_model_load_from_file(path, params);
}

}  // namespace melt_compat

#define llama_model_params melt_compat::ModelParams
#define llama_model_load_from_file melt_compat::load

#endif
#endif
