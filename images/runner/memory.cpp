#include "memory.h"

#include <fstream>
#include <map>
#include <string>

namespace melt {

Memory read_memory() {
    Memory memory;
    const std::map<std::string, std::optional<uint64_t> *> places = {
        {"RssAnon", &memory.rss_anon}, {"RssFile", &memory.rss_file}, {"VmHWM", &memory.hwm}, {"VmSwap", &memory.swap}};
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        const size_t colon = line.find(':');
        const auto place = places.find(line.substr(0, colon));
        if (colon != std::string::npos && place != places.end()) {
            *place->second = std::stoull(line.substr(colon + 1)) * uint64_t{1024};
        }
    }
    return memory;
}

}  // namespace melt
