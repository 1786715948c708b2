# llama.cpp in any version of llama-cpp-python of 2026: first values of its options. Those that a version lacks do nothing.
set(CMAKE_PROJECT_meltrepro-llama.cpp_INCLUDE ${CMAKE_CURRENT_LIST_DIR}/../versions/features.cmake CACHE FILEPATH "")
set(MELT_LLAMA_API 202610 CACHE STRING "Month of the C API that engine.cpp is to use")
set(MELT_JSON_FOLDER vendor/nlohmann CACHE STRING "Where this release keeps the json.hpp of its tools")
set(MELT_TARGET_main llama-completion CACHE STRING "What became of main")
set(MELT_TARGET_quantize llama-quantize CACHE STRING "")
set(MELT_TARGET_perplexity llama-perplexity CACHE STRING "")

# The CPU level comes from the compiler flags alone.
foreach(option NATIVE SSE42 AVX AVX2 BMI2 FMA F16C AVX_VNNI AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16
        AMX_TILE AMX_INT8 AMX_BF16)
    set(GGML_${option} OFF CACHE BOOL "")
endforeach()
set(GGML_OPENMP OFF CACHE BOOL "ggml's own threads need no library")
set(GGML_CCACHE OFF CACHE BOOL "")
foreach(part COMMON TOOLS)
    set(LLAMA_BUILD_${part} ON CACHE BOOL "")
endforeach()
foreach(part TESTS EXAMPLES SERVER APP UI)
    set(LLAMA_BUILD_${part} OFF CACHE BOOL "")
endforeach()
set(LLAMA_USE_PREBUILT_UI OFF CACHE BOOL "It would be downloaded")
set(LLAMA_OPENSSL OFF CACHE BOOL "")
