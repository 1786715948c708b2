// The one function of Vulkan's loader that llama.cpp is linked with; all others come from it. The loader is looked for while a
// program runs: a device without one is one without a GPU, and no program that does not start.
#include <vulkan/vulkan_core.h>

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>
#include <unistd.h>

namespace {

VKAPI_ATTR VkResult VKAPI_CALL no_version(uint32_t *) { return VK_ERROR_INITIALIZATION_FAILED; }

#ifdef MELT_SOFTWARE
// The bundle's own driver lies beside the loader of programs that was started, as does its description. llama.cpp leaves out
// devices that compute on the CPU, unless they are named.
void choose_software() {
    static char self[4096];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    const std::string path(self, length > 0 ? static_cast<size_t>(length) : 0);
    setenv("VK_DRIVER_FILES", (path.substr(0, path.rfind('/')) + "/software.json").c_str(), 1);
    setenv("VK_ICD_FILENAMES", std::getenv("VK_DRIVER_FILES"), 1);  // as older loaders call it
    setenv("VK_LOADER_LAYERS_DISABLE", "~implicit~", 1);
    setenv("GGML_VK_VISIBLE_DEVICES", "0", 1);
}
#endif

PFN_vkGetInstanceProcAddr find() {
#ifdef MELT_SOFTWARE
    choose_software();
#endif
    for (const char * name : {"libvulkan.so.1", "libvulkan.so"}) {
        if (void * library = dlopen(name, RTLD_NOW)) {
            return reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
        }
    }
    std::fprintf(stderr, "Vulkan: no loader: %s\n", dlerror());
    return nullptr;
}

}  // namespace

extern "C" VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char * name) {
    static const PFN_vkGetInstanceProcAddr function = find();
    if (function != nullptr) {
        return function(instance, name);
    }
    // The first call of all; llama.cpp takes its failure for a machine without Vulkan.
    return std::strcmp(name, "vkEnumerateInstanceVersion") == 0 ? reinterpret_cast<PFN_vkVoidFunction>(no_version) : nullptr;
}
