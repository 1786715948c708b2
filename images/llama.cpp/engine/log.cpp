#include "log.h"

#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>
#include <unistd.h>

extern char ** environ;

namespace melt {
namespace {

// Texts of both releases; each stands after the name of a function and a colon.
constexpr const char * buffer_size = " buffer size = ";
constexpr const char * fused = "Flash Attention ";
constexpr const char * forced = "enabling flash_attn";
constexpr const char * offloaded = "offloaded ";
constexpr const char * loading = "(load_mode = ";
constexpr const char * no_direct_io = "Falling back to buffered I/O";
// With what positions are turned, by the option that changes it.
const std::map<std::string, std::string> numbers = {{": freq_base ", "rope_freq_base"}, {": freq_scale ", "rope_freq_scale"}};

// What a buffer holds, by what stands between its name and its size; llama.cpp of 2024 says nothing there of weights.
const std::map<std::string, std::string> uses = {
    {"", "weights"}, {"model", "weights"}, {"KV", "kv_cache"}, {"RS", "recurrent_state"}, {"compute", "compute"},
    {"LoRA", "lora"}};

// What stands after a text and what stands before it, if it is there.
bool split(const std::string & text, const char * at, std::string & before, std::string & after) {
    const size_t found = text.find(at);
    if (found == std::string::npos) {
        return false;
    }
    before = text.substr(0, found);
    after = text.substr(found + std::strlen(at));
    return true;
}

}  // namespace

void Log::read(const std::string & text) {
    std::string before, after;
    if (split(text, buffer_size, before, after)) {
        std::istringstream words(before.substr(before.find(": ") == std::string::npos ? 0 : before.find(": ") + 2));
        std::string name, use, more;
        words >> name >> use >> more;
        std::istringstream size(after);
        double mebibytes = 0;
        if (const auto known = uses.find(use); known != uses.end() && more.empty() && size >> mebibytes) {
            std::ostringstream shown;
            shown.precision(1);
            shown << std::fixed << mebibytes << " MiB";
            buffers[known->second][name] = shown.str();
        }
    } else if (split(text, fused, before, after)) {
        if (after.rfind("enabled", 0) == 0) {
            flash_attention = "on";
        } else if (after.rfind("not supported", 0) == 0) {
            flash_attention = "off";
        }
    } else if (text.find(forced) != std::string::npos) {
        flash_attention = "on";
    } else if (text.find("forcing off") != std::string::npos) {
        flash_attention = "off";
    } else if (split(text, offloaded, before, after) && after.find(" layers to GPU") != std::string::npos) {
        on_gpu = after.substr(0, after.find(' '));
    } else if (text.find(no_direct_io) != std::string::npos) {
        buffered = true;
    } else if (split(text, loading, before, after)) {
        const bool mapped = after.rfind("mmap", 0) == 0;
        values["mmap"] = mapped;
        values["load"] = mapped ? "mmap" : after.rfind("dio", 0) == 0 && !buffered ? "direct" : "read";
    } else {
        read_number(text);
    }
}

void Log::read_number(const std::string & text) {
    std::string before, after;
    for (const auto & [name, option] : numbers) {
        if (split(text, name.c_str(), before, after) && after.find("= ") != std::string::npos) {
            const std::string number = after.substr(after.find("= ") + 2);
            char * end = nullptr;
            if (const double value = std::strtod(number.c_str(), &end); end != number.c_str()) {
                values[option] = value;
            }
        }
    }
}

std::optional<Json> Log::value(const std::string & option) const {
    const auto found = values.find(option);
    return found == values.end() ? std::nullopt : std::optional<Json>(found->second);
}

void Log::add_to(Json::Object & fields) const {
    for (const auto & [use, found] : buffers) {
        std::string list;
        for (const auto & [name, size] : found) {
            list += (list.empty() ? "" : ", ") + name + " " + size;
        }
        fields.emplace_back(use, list);
    }
    if (!on_gpu.empty()) {
        fields.emplace_back("layers_on_gpu", on_gpu);
    }
}

std::string engine_variables() {
    static const char * const prefixes[] = {"GGML_", "LLAMA_", "OMP_",    "GOMP_",          "KMP_",
                                            "CUDA_", "VK_",     "LD_",    "MALLOC_", "GLIBC_TUNABLES"};
    std::set<std::string> found;
    for (char ** entry = environ; *entry != nullptr; ++entry) {
        for (const char * prefix : prefixes) {
            if (std::strncmp(*entry, prefix, std::strlen(prefix)) == 0) {
                found.insert(*entry);
            }
        }
    }
    std::string list;
    for (const std::string & each : found) {
        list += (list.empty() ? "" : " ") + each;
    }
    return list;
}

}  // namespace melt
