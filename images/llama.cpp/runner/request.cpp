#include "request.h"

#include "failure.h"
#include "json.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

namespace melt {
namespace {

using json = nlohmann::json;

constexpr int64_t max_int32 = std::numeric_limits<int32_t>::max();
constexpr int64_t max_int64 = std::numeric_limits<int64_t>::max();
constexpr int64_t max_threads = 512;  // the framework's own limit
constexpr int64_t max_pulse_ms = 60000;

[[noreturn]] void wrong(const std::string & field, const std::string & problem) {
    throw Failure(ExitCode::bad_request, "request: " + (field.empty() ? problem : field + ": " + problem));
}

std::string shown(const json & value) {
    const std::string text = value.dump(-1, ' ', true);
    return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

// One JSON object, read field by field; finish() refuses what nobody asked for.
class Fields {
public:
    Fields(const json & node, std::string path) : node(node), path(std::move(path)) {
        if (!node.is_object()) {
            wrong(this->path, "expected an object, got " + shown(node));
        }
    }

    const json & required(const std::string & name) {
        const json * value = optional(name);
        if (value == nullptr) {
            wrong(path_of(name), "missing");
        }
        return *value;
    }

    const json * optional(const std::string & name) {
        known.insert(name);
        const auto found = node.find(name);
        return found == node.end() ? nullptr : &*found;
    }

    int64_t to_integer(const std::string & name, const json & value, int64_t low, int64_t high) const {
        const bool fits = value.is_number_integer() &&
                          !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max_int64)) &&
                          value.get<int64_t>() >= low && value.get<int64_t>() <= high;
        if (!fits) {
            wrong(path_of(name), "expected a whole number from " + std::to_string(low) + " to " + std::to_string(high) +
                                     ", got " + shown(value));
        }
        return value.get<int64_t>();
    }

    int64_t integer(const std::string & name, int64_t low, int64_t high) { return to_integer(name, required(name), low, high); }

    int64_t integer_or(const std::string & name, int64_t low, int64_t high, int64_t absent) {
        const json * value = optional(name);
        return value == nullptr ? absent : to_integer(name, *value, low, high);
    }

    // A finite number above `low`, at most `high`.
    double number(const std::string & name, double low, double high) {
        const json & value = required(name);
        if (!value.is_number() || !(value.get<double>() > low) || !(value.get<double>() <= high)) {
            std::ostringstream expected;
            expected << "expected a number above " << low << " and at most " << high << ", got ";
            wrong(path_of(name), expected.str() + shown(value));
        }
        return value.get<double>();
    }

    bool boolean(const std::string & name) { return to_boolean(name, required(name)); }

    bool boolean_or(const std::string & name, bool absent) {
        const json * value = optional(name);
        return value == nullptr ? absent : to_boolean(name, *value);
    }

    bool to_boolean(const std::string & name, const json & value) const {
        if (!value.is_boolean()) {
            wrong(path_of(name), "expected true or false, got " + shown(value));
        }
        return value.get<bool>();
    }

    std::string path_of(const std::string & name) const { return path.empty() ? name : path + "." + name; }

    void finish() const {
        for (const auto & item : node.items()) {
            if (known.count(item.key()) == 0) {
                wrong(path_of(item.key()), "unknown field");
            }
        }
    }

private:
    const json & node;
    const std::string path;
    std::set<std::string> known;
};

std::string text(const std::string & field, const json & value) {
    if (!value.is_string() || value.get_ref<const std::string &>().empty()) {
        wrong(field, "expected a text that is not empty, got " + shown(value));
    }
    return value.get<std::string>();
}

const json & list(const std::string & field, const json & value) {
    if (!value.is_array() || value.empty()) {
        wrong(field, "expected a list that is not empty, got " + shown(value));
    }
    return value;
}

std::vector<std::vector<std::string>> read_conversations(const json & node) {
    std::vector<std::vector<std::string>> conversations;
    for (const json & turns : list("conversations", node)) {
        const std::string field = "conversations[" + std::to_string(conversations.size()) + "]";
        auto & texts = conversations.emplace_back();
        for (const json & turn : list(field, turns)) {
            texts.push_back(text(field + "[" + std::to_string(texts.size()) + "]", turn));
        }
    }
    return conversations;
}

Sampling read_sampling(const json & node) {
    Fields fields(node, "sampling");
    Sampling sampling{};
    sampling.greedy = fields.boolean("greedy");
    sampling.temperature = fields.number("temperature", 0, 1000);
    sampling.top_k = static_cast<int32_t>(fields.integer("top_k", 0, max_int32));
    sampling.top_p = fields.number("top_p", 0, 1);
    sampling.repeat_penalty = fields.number("repeat_penalty", 0, 1000);
    sampling.repeat_last_n = static_cast<int32_t>(fields.integer("repeat_last_n", 0, max_int32));
    sampling.seed = static_cast<uint64_t>(fields.integer("seed", 0, max_int64));
    fields.finish();
    return sampling;
}

bool read_profile(const json * value) {
    if (value == nullptr || *value == "off") {
        return false;
    }
    if (*value != "operators") {
        wrong("profile", "expected \"off\" or \"operators\", got " + shown(*value));
    }
    return true;
}

SyncMark read_sync_mark(const json * node) {
    SyncMark mark{};
    if (node == nullptr) {
        return mark;
    }
    Fields fields(*node, "sync_mark");
    const json & pulses = list("sync_mark.pulses_ms", fields.required("pulses_ms"));
    for (const json & pulse : pulses) {
        const std::string field = "pulses_ms[" + std::to_string(mark.pulses_ms.size()) + "]";
        mark.pulses_ms.push_back(static_cast<int32_t>(fields.to_integer(field, pulse, 1, max_pulse_ms)));
    }
    mark.rest_ms = static_cast<int32_t>(fields.integer("rest_ms", 1, max_pulse_ms));
    fields.finish();
    return mark;
}

json parse(const std::string & path) {
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    if (!(content << file.rdbuf())) {
        wrong("", "cannot read " + path + ": " + (errno != 0 ? std::strerror(errno) : "it is empty"));
    }
    try {
        return json::parse(content.str());
    } catch (const json::exception & error) {
        wrong("", path + " is no JSON: " + error.what());
    }
}

}  // namespace

Request read_request(const std::string & path) {
    const json document = parse(path);
    Fields fields(document, "");
    // The version comes first: nothing else can be judged under another one.
    fields.integer_or("v", 1, 1, 1);
    Request request{};
    request.model = text("model", fields.required("model"));
    request.context = static_cast<int32_t>(fields.integer("context", 1, max_int32));
    request.threads = static_cast<int32_t>(fields.integer("threads", 1, max_threads));
    request.batch = static_cast<int32_t>(fields.integer("batch", 1, max_int32));
    request.gpu_layers = static_cast<int32_t>(fields.integer_or("gpu_layers", 0, max_int32, 0));
    request.mmap = fields.boolean_or("mmap", true);
    request.max_tokens = static_cast<int32_t>(fields.integer("max_tokens", 1, max_int32));
    request.ignore_eos = fields.boolean("ignore_eos");
    request.sampling = read_sampling(fields.required("sampling"));
    request.conversations = read_conversations(fields.required("conversations"));
    request.profile_operators = read_profile(fields.optional("profile"));
    request.warmup_tokens = static_cast<int32_t>(fields.integer_or("warmup_tokens", 0, max_int32, 16));
    request.turn_pause_ms = static_cast<int32_t>(fields.integer_or("turn_pause_ms", 0, max_int32, 0));
    request.conversation_pause_ms = static_cast<int32_t>(fields.integer_or("conversation_pause_ms", 0, max_int32, 0));
    request.sync_mark = read_sync_mark(fields.optional("sync_mark"));
    fields.finish();
    return request;
}

}  // namespace melt
