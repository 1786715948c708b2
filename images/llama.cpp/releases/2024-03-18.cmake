# llama.cpp of 2024-03-18, three weeks after the paper's: loads models that share output and embedding weights.
set(MELT_LLAMA_API 202403 CACHE STRING "Month of the C API that framework.cpp is to use")
set(MELT_JSON_FOLDER examples/server CACHE STRING "Where this release keeps json.hpp")

# The CPU level comes from the compiler flags alone.
foreach(option NATIVE AVX AVX2 AVX512 FMA F16C)
    set(LLAMA_${option} OFF CACHE BOOL "")
endforeach()
set(LLAMA_CCACHE OFF CACHE BOOL "")
set(LLAMA_BUILD_EXAMPLES ON CACHE BOOL "The tools are among them")
set(LLAMA_BUILD_TESTS OFF CACHE BOOL "")
set(LLAMA_BUILD_SERVER OFF CACHE BOOL "")
