// What llama.cpp decides by itself and says in its log alone, no function of its API: where weights and caches lie, which of
// them were repacked, and whether attention is fused.
#pragma once

#include "json.h"

#include <map>
#include <optional>
#include <string>

namespace melt {

struct Log {
    std::string flash_attention = "unknown";  // on, off

    // Take one message, as the log has it.
    void read(const std::string & text);
    // What became of an option; nothing where the log does not say.
    std::optional<Json> value(const std::string & option) const;
    // Fields of the `effective` event: per use the buffers with their sizes, `CPU_Mapped 93.8 MiB, CPU_REPACK 54.0 MiB`.
    void add_to(Json::Object & fields) const;

private:
    void read_number(const std::string & text);

    std::map<std::string, std::map<std::string, std::string>> buffers;  // use -> name -> size
    std::map<std::string, Json> values;                                 // of options
    bool buffered = false;                                              // although the file was to be read directly
    std::string on_gpu;                                                 // layers, of how many
};

// Variables of the environment that change how ggml, its thread libraries or the allocator work, as NAME=VALUE.
std::string engine_variables();

}  // namespace melt
