// One JSON object of a request, read field by field: what is missing, wrong or unknown is refused by its name.
#pragma once

#include "json.h"

#include <cstdint>
#include <set>
#include <string>

namespace melt {

// Every function throws Failure(bad_request) where a value is not what it should be.
class Fields {
public:
    // `path` is how the object is called in messages; empty for the request itself.
    Fields(const Json & node, std::string path);

    const Json & required(const std::string & name);
    const Json * optional(const std::string & name);

    int64_t integer(const std::string & name, int64_t low, int64_t high);
    int64_t integer_or(const std::string & name, int64_t low, int64_t high, int64_t absent);
    // A number above `low`, at most `high`.
    double number(const std::string & name, double low, double high);
    bool boolean(const std::string & name);
    bool boolean_or(const std::string & name, bool absent);
    // Texts and lists that are not empty.
    std::string text(const std::string & name);
    const Json::Array & list(const std::string & name);

    int64_t to_integer(const std::string & name, const Json & value, int64_t low, int64_t high) const;
    std::string to_text(const std::string & name, const Json & value) const;
    const Json::Array & to_list(const std::string & name, const Json & value) const;

    [[noreturn]] void wrong(const std::string & name, const std::string & problem) const;

    // Refuses what nobody asked for.
    void finish() const;

private:
    bool to_boolean(const std::string & name, const Json & value) const;

    const Json & node;
    const std::string path;
    std::set<std::string> known;
};

// A value as messages show it, cut off where it is long.
std::string shown(const Json & value);

}  // namespace melt
