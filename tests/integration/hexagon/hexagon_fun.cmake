# STAND-IN for what the SDK does with descriptions of interfaces.
function(build_idl file target)
    get_filename_component(name ${file} NAME_WE)
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/${name}.h "#include <sdk.h>\n")
    configure_file(${HEXAGON_SDK_ROOT}/stub.c ${CMAKE_CURRENT_BINARY_DIR}/${name}_stub.c COPYONLY)
    configure_file(${HEXAGON_SDK_ROOT}/stub.c ${CMAKE_CURRENT_BINARY_DIR}/${name}_skel.c COPYONLY)
endfunction()
