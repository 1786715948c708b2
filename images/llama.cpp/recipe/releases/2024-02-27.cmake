# llama.cpp of 2024-02-27, the time of the paper: first values of its options.
# It asks LLaMA models for an output.weight of their own: one that shares it with the embeddings cannot be loaded.
set(MELT_LLAMA_API 202402 CACHE STRING "Month of the C API that engine.cpp is to use")
set(MELT_JSON_FOLDER examples/server CACHE STRING "Where this release keeps the json.hpp of its tools")

# The CPU level comes from the compiler flags alone.
foreach(option NATIVE AVX AVX2 AVX512 FMA F16C)
    set(LLAMA_${option} OFF CACHE BOOL "")
endforeach()
set(LLAMA_CCACHE OFF CACHE BOOL "")
set(LLAMA_BUILD_EXAMPLES ON CACHE BOOL "The tools are among them")
set(LLAMA_BUILD_TESTS OFF CACHE BOOL "")
set(LLAMA_BUILD_SERVER OFF CACHE BOOL "")
