#include "openvino.h"

#include <dlfcn.h>

#include <type_traits>

namespace melt {

OpenVino::OpenVino(const char * library) {
    // Not linked: the runner has a C++ library of its own, whose exceptions must not get into this one's.
    void * handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        throw Failure(ExitCode::model, std::string("OpenVINO cannot be loaded: ") + dlerror());
    }
    const auto take = [&](auto & function, const char * name) {
        void * found = dlsym(handle, name);
        if (found == nullptr) {
            throw Failure(ExitCode::model, std::string(library) + " has no function " + name);
        }
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    };
    take(create_core, "ov_core_create");
    take(read_model, "ov_core_read_model");
    take(compile, "ov_core_compile_model_props");
    take(create_request, "ov_compiled_model_create_infer_request");
    take(create_tensor_of, "ov_tensor_create_from_host_ptr");
    take(set_input, "ov_infer_request_set_input_tensor_by_index");
    take(infer, "ov_infer_request_infer");
    take(get_output, "ov_infer_request_get_output_tensor_by_index");
    take(get_data, "ov_tensor_data");
    take(get_byte_size, "ov_tensor_get_byte_size");
    take(get_measured, "ov_infer_request_get_profiling_info");
    take(release_measured, "ov_profiling_info_list_free");
    take(release_core, "ov_core_free");
    take(release_model, "ov_model_free");
    take(release_compiled, "ov_compiled_model_free");
    take(release_request, "ov_infer_request_free");
    take(release_tensor, "ov_tensor_free");
    take(get_property, "ov_compiled_model_get_property");
    take(get_version, "ov_get_openvino_version");
    take(last_message, "ov_get_last_err_msg");
    take(release_text, "ov_free");
    take(release_version, "ov_version_free");
    Version found{};
    check(get_version(&found), ExitCode::model);
    version = found.build;
    release_version(&found);
}

void OpenVino::check(Status status, ExitCode code) const {
    if (status != Status::ok) {
        const char * message = last_message();
        throw Failure(code, "OpenVINO: " + (message != nullptr ? std::string(message) : std::to_string(static_cast<int>(status))));
    }
}

std::string OpenVino::property(const ov_compiled_model * model, const char * key) const {
    char * value = nullptr;
    check(get_property(model, key, &value), ExitCode::model);
    const std::string found = value;
    release_text(value);
    return found;
}

}  // namespace melt
