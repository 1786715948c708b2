#include "fields.h"

#include "failure.h"

#include <sstream>

namespace melt {

std::string shown(const Json & value) {
    std::string text = value.dump();
    if (text.size() > 60) {
        size_t end = 57;
        while ((static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) {
            --end;  // no half characters
        }
        text = text.substr(0, end) + "...";
    }
    return text;
}

Fields::Fields(const Json & node, std::string path) : node(node), path(std::move(path)) {
    if (node.as<Json::Object>() == nullptr) {
        wrong("", "expected an object, got " + shown(node));
    }
}

void Fields::wrong(const std::string & name, const std::string & problem) const {
    const std::string field = path + (path.empty() || name.empty() ? "" : ".") + name;
    throw Failure(ExitCode::bad_request, "request: " + field + (field.empty() ? "" : ": ") + problem);
}

const Json & Fields::required(const std::string & name) {
    const Json * value = optional(name);
    if (value == nullptr) {
        wrong(name, "missing");
    }
    return *value;
}

const Json * Fields::optional(const std::string & name) {
    known.insert(name);
    return node.find(name);
}

int64_t Fields::to_integer(const std::string & name, const Json & value, int64_t low, int64_t high) const {
    const auto * number = value.as<int64_t>();
    if (number == nullptr || *number < low || *number > high) {
        wrong(name, "expected a whole number from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
                        shown(value));
    }
    return *number;
}

int64_t Fields::integer(const std::string & name, int64_t low, int64_t high) {
    return to_integer(name, required(name), low, high);
}

int64_t Fields::integer_or(const std::string & name, int64_t low, int64_t high, int64_t absent) {
    const Json * value = optional(name);
    return value == nullptr ? absent : to_integer(name, *value, low, high);
}

double Fields::number(const std::string & name, double low, double high) {
    const Json & value = required(name);
    const bool is_number = value.as<int64_t>() != nullptr || value.as<double>() != nullptr;
    if (!is_number || !(value.number() > low) || !(value.number() <= high)) {
        std::ostringstream expected;
        expected << "expected a number above " << low << " and at most " << high << ", got ";
        wrong(name, expected.str() + shown(value));
    }
    return value.number();
}

bool Fields::to_boolean(const std::string & name, const Json & value) const {
    const auto * truth = value.as<bool>();
    if (truth == nullptr) {
        wrong(name, "expected true or false, got " + shown(value));
    }
    return *truth;
}

bool Fields::boolean(const std::string & name) { return to_boolean(name, required(name)); }

bool Fields::boolean_or(const std::string & name, bool absent) {
    const Json * value = optional(name);
    return value == nullptr ? absent : to_boolean(name, *value);
}

std::string Fields::to_text(const std::string & name, const Json & value) const {
    const auto * text = value.as<std::string>();
    if (text == nullptr || text->empty()) {
        wrong(name, "expected a text that is not empty, got " + shown(value));
    }
    return *text;
}

std::string Fields::text(const std::string & name) { return to_text(name, required(name)); }

const Json::Array & Fields::to_list(const std::string & name, const Json & value) const {
    const auto * items = value.as<Json::Array>();
    if (items == nullptr || items->empty()) {
        wrong(name, "expected a list that is not empty, got " + shown(value));
    }
    return *items;
}

const Json::Array & Fields::list(const std::string & name) { return to_list(name, required(name)); }

void Fields::finish() const {
    for (const auto & [name, value] : node.get<Json::Object>()) {
        if (known.count(name) == 0) {
            wrong(name, "unknown field");
        }
    }
}

}  // namespace melt
