// What the kernel says of this process's memory.
#pragma once

#include <cstdint>
#include <optional>

namespace melt {

// In bytes; nothing where the kernel does not tell.
struct Memory {
    std::optional<uint64_t> rss_anon;
    std::optional<uint64_t> rss_file;
    std::optional<uint64_t> hwm;
    std::optional<uint64_t> swap;
};

Memory read_memory();

}  // namespace melt
