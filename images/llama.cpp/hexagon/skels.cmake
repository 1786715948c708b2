# Programs do not depend on the libraries for the NPU, which llama.cpp builds as projects of their own: the bundle does.
function(melt_add_skels)
    get_property(targets DIRECTORY "${MELT_SOURCE}/ggml/src/ggml-hexagon" PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER targets INCLUDE REGEX "^htp-v")
    add_dependencies(bundle ${targets})
endfunction()
cmake_language(DEFER CALL melt_add_skels)
