#include "memory.h"

#include <cstdint>
#include <fstream>
#include <map>

namespace melt {

Events::Fields memory_fields(const char * phase) {
    static const std::map<std::string, const char *> names = {
        {"RssAnon:", "rss_anon"}, {"RssFile:", "rss_file"}, {"VmHWM:", "hwm"}, {"VmSwap:", "swap"}};
    Events::Fields fields{{"phase", phase}, {"rss_anon", nullptr}, {"rss_file", nullptr}, {"hwm", nullptr}, {"swap", nullptr}};
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        const size_t colon = line.find(':');
        const auto name = names.find(line.substr(0, colon == std::string::npos ? 0 : colon + 1));
        if (name != names.end()) {
            fields[name->second] = std::stoull(line.substr(colon + 1)) * uint64_t{1024};
        }
    }
    return fields;
}

}  // namespace melt
