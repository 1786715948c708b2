// events.jsonl: lines are gathered in memory and reach the file only in flush(), so that writing disturbs no timing.
#pragma once

#include "json.h"

#include <cstdint>
#include <optional>
#include <string>

namespace melt {

class Events {
public:
    // Opens the file for appending; throws Failure(events).
    explicit Events(const std::string & path);
    ~Events();
    Events(const Events &) = delete;
    Events & operator=(const Events &) = delete;

    // Add an event that happens now, or at `t`.
    void add(const char * kind, const Json::Object & fields = {});
    void add_at(int64_t t, const char * kind, const Json::Object & fields = {});
    // A `mem` event of now.
    void add_memory(const char * phase);
    // The one event that is added while a turn is timed.
    void add_token(int64_t t, int64_t index, int32_t id, std::optional<float> margin);

    // Write what was gathered; throws Failure(events), for example when the disk is full.
    void flush();
    // flush(), then wait until the file is on the disk.
    void sync();

    int descriptor() const { return file; }

private:
    int file;
    std::string lines;
};

}  // namespace melt
