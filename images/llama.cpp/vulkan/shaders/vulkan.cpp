// The functions of Vulkan's loader that llama.cpp is linked with; all others come from them. The loader is looked for while a
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

void * open_loader() {
#ifdef MELT_SOFTWARE
    choose_software();
#endif
    for (const char * name : {"libvulkan.so.1", "libvulkan.so"}) {
        if (void * library = dlopen(name, RTLD_NOW)) {
            return library;
        }
    }
    std::fprintf(stderr, "Vulkan: no loader: %s\n", dlerror());
    return nullptr;
}

// A function of the loader, by its type; null where there is no loader.
template <typename Function>
Function of_loader(const char * name) {
    static void * const library = open_loader();
    return library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

extern "C" VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetInstanceProcAddr(VkInstance instance, const char * name) {
    static const auto function = of_loader<PFN_vkGetInstanceProcAddr>("vkGetInstanceProcAddr");
    if (function != nullptr) {
        return function(instance, name);
    }
    // The first call of all; llama.cpp takes its failure for a machine without Vulkan.
    return std::strcmp(name, "vkEnumerateInstanceVersion") == 0 ? reinterpret_cast<PFN_vkVoidFunction>(no_version) : nullptr;
}

// None of these is called before an instance is there.
extern "C" VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL vkGetDeviceProcAddr(VkDevice device, const char * name) {
    static const auto function = of_loader<PFN_vkGetDeviceProcAddr>("vkGetDeviceProcAddr");
    return function(device, name);
}

extern "C" VKAPI_ATTR void VKAPI_CALL vkGetPhysicalDeviceFeatures2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2 * features) {
    static const auto function = of_loader<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2");
    function(device, features);
}

extern "C" VKAPI_ATTR void VKAPI_CALL vkCmdCopyBuffer(VkCommandBuffer commands, VkBuffer from, VkBuffer to, uint32_t count,
                                                      const VkBufferCopy * regions) {
    static const auto function = of_loader<PFN_vkCmdCopyBuffer>("vkCmdCopyBuffer");
    function(commands, from, to, count, regions);
}
