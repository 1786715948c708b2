// Stands between the runner and llama.cpp's loading of models: layers that were asked for on the GPU must not end up on the
// CPU unnoticed, which is what llama.cpp does where no GPU can be used.
#include "llama.h"

#include <cstdio>

extern "C" {

llama_model * __real_llama_model_load_from_file(const char * path, llama_model_params params);

llama_model * __wrap_llama_model_load_from_file(const char * path, llama_model_params params) {
    if (params.n_gpu_layers != 0 && !llama_supports_gpu_offload()) {
        std::fputs("melt-runner: no GPU can be used; ggml_cuda_init says why above (no driver, or one too old)\n", stderr);
        return nullptr;
    }
    return __real_llama_model_load_from_file(path, params);
}
}
