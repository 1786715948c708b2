#include "request.h"

#include "failure.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

namespace melt {
namespace {

constexpr int64_t max_int32 = std::numeric_limits<int32_t>::max();
constexpr int64_t max_int64 = std::numeric_limits<int64_t>::max();
constexpr int64_t max_threads = 512;
constexpr int64_t max_pulse_ms = 60000;
constexpr int64_t max_drafted = 64;
constexpr int64_t max_sequences = 64;
constexpr int64_t max_port = 65535;

Prompt read_prompt(const Fields & fields, const std::string & field, const Json & turn, int32_t max_tokens) {
    if (turn.as<Json::Object>() == nullptr) {
        return {fields.to_text(field, turn), 0, max_tokens};
    }
    Fields made_up(turn, field);
    Prompt prompt{"", 0, max_tokens};
    prompt.tokens = static_cast<int32_t>(made_up.integer("tokens", 1, max_int32));
    prompt.max_tokens = static_cast<int32_t>(made_up.integer_or("max_tokens", 1, max_int32, max_tokens));
    made_up.finish();
    return prompt;
}

std::vector<std::vector<Prompt>> read_conversations(Fields & fields, int32_t max_tokens) {
    std::vector<std::vector<Prompt>> conversations;
    for (const Json & turns : fields.list("conversations")) {
        const std::string field = "conversations[" + std::to_string(conversations.size()) + "]";
        auto & prompts = conversations.emplace_back();
        for (const Json & turn : fields.to_list(field, turns)) {
            prompts.push_back(read_prompt(fields, field + "[" + std::to_string(prompts.size()) + "]", turn, max_tokens));
        }
    }
    return conversations;
}

Caching read_caching(Fields & fields) {
    const Json * value = fields.optional("page_cache");
    const std::string * name = value == nullptr ? nullptr : value->as<std::string>();
    if (value != nullptr && (name == nullptr || (*name != "cold" && *name != "warm"))) {
        fields.wrong("page_cache", "expected \"cold\" or \"warm\", got " + shown(*value));
    }
    return name == nullptr ? Caching::as_is : *name == "cold" ? Caching::cold : Caching::warm;
}

bool read_restore(Fields & fields, const Engine & engine) {
    const bool restore = fields.boolean_or("restore", false);
    if (restore && !engine.saves_context()) {
        fields.wrong("restore", "this framework writes no context to a file");
    }
    return restore;
}

Sampling read_sampling(const Json & node) {
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

bool read_profile(Fields & fields, const Engine & engine) {
    const Json * value = fields.optional("profile");
    const std::string * name = value == nullptr ? nullptr : value->as<std::string>();
    if (value == nullptr || (name != nullptr && *name == "off")) {
        return false;
    }
    if (name == nullptr || *name != "operators") {
        fields.wrong("profile", "expected \"off\" or \"operators\", got " + shown(*value));
    }
    if (!engine.profiles_operators()) {
        fields.wrong("profile", "this framework does not tell its operators");
    }
    return true;
}

SyncMark read_sync_mark(const Json * node) {
    SyncMark mark{};
    if (node == nullptr) {
        return mark;
    }
    Fields fields(*node, "sync_mark");
    for (const Json & pulse : fields.list("pulses_ms")) {
        const std::string field = "pulses_ms[" + std::to_string(mark.pulses_ms.size()) + "]";
        mark.pulses_ms.push_back(static_cast<int32_t>(fields.to_integer(field, pulse, 1, max_pulse_ms)));
    }
    mark.rest_ms = static_cast<int32_t>(fields.integer("rest_ms", 1, max_pulse_ms));
    fields.finish();
    return mark;
}

std::optional<ThinkingMarkers> read_thinking(const Json * node) {
    if (node == nullptr) {
        return std::nullopt;
    }
    Fields fields(*node, "thinking");
    ThinkingMarkers markers{fields.text("begin"), fields.text("end"), {}};
    if (const Json * most = fields.optional("max_tokens"); most != nullptr) {
        markers.max_tokens = fields.to_integer("max_tokens", *most, 1, max_int32);
    }
    fields.finish();
    return markers;
}

std::optional<Peer> read_peer(Fields & request, const std::string & name) {
    const Json * node = request.optional(name);
    if (node == nullptr) {
        return std::nullopt;
    }
    Fields fields(*node, name);
    Peer peer{fields.text("address"), static_cast<uint16_t>(fields.integer("port", 1, max_port)), fields.text("token")};
    fields.finish();
    return peer;
}

int32_t read_sequences(Fields & fields, const Engine & engine, int32_t batch) {
    const int64_t count = fields.integer_or("sequences", 1, max_sequences, 1);
    if (count > 1 && !engine.holds_sequences()) {
        fields.wrong("sequences", "this framework holds one sequence");
    }
    if (count > 1 && (!fields.boolean("ignore_eos") || fields.optional("speculate") != nullptr)) {
        fields.wrong("sequences", "several need ignore_eos, so that none ends before the others, and no speculation");
    }
    if (count > batch) {
        fields.wrong("sequences", "a step of " + std::to_string(batch) + " tokens does not hold one of each");
    }
    return static_cast<int32_t>(count);
}

std::optional<Speculation> read_speculation(Fields & request, const Engine & engine) {
    const Json * node = request.optional("speculate");
    if (node == nullptr) {
        return std::nullopt;
    }
    if (!engine.rewinds()) {
        request.wrong("speculate", "this framework takes no tokens out of its context again");
    }
    Fields fields(*node, "speculate");
    Speculation speculation{};
    speculation.tokens = static_cast<int32_t>(fields.integer("tokens", 1, max_drafted));
    speculation.ngram = static_cast<int32_t>(fields.integer_or("ngram", 1, max_drafted, 0));
    if (speculation.ngram == 0) {
        speculation.model = fields.text("model");
        fields.optional("digest");  // for the record alone
        speculation.engine = make_engine();
        speculation.engine->read_options(fields);
    }
    fields.finish();
    return speculation;
}

Json parse(const std::string & path) {
    const auto unreadable = [&](const std::string & problem) {
        return Failure(ExitCode::bad_request, "request: " + problem);
    };
    errno = 0;
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    if (!(content << file.rdbuf())) {
        throw unreadable("cannot read " + path + ": " + (errno != 0 ? std::strerror(errno) : "it is empty"));
    }
    try {
        return Json::parse(content.str());
    } catch (const JsonError & error) {
        throw unreadable(path + " is no JSON: " + error.what());
    }
}

}  // namespace

Request read_request(const std::string & path, Engine & engine) {
    const Json document = parse(path);
    Fields fields(document, "");
    // The version comes first: nothing else can be judged under another one.
    fields.integer_or("v", 1, 1, 1);
    Request request{};
    request.model = fields.text("model");
    request.caching = read_caching(fields);
    request.setup.context = static_cast<int32_t>(fields.integer("context", 1, max_int32));
    request.setup.threads = static_cast<int32_t>(fields.integer("threads", 1, max_threads));
    request.setup.batch = static_cast<int32_t>(fields.integer("batch", 1, max_int32));
    engine.read_options(fields);
    request.max_tokens = static_cast<int32_t>(fields.integer("max_tokens", 1, max_int32));
    request.ignore_eos = fields.boolean("ignore_eos");
    request.sampling = read_sampling(fields.required("sampling"));
    request.conversations = read_conversations(fields, request.max_tokens);
    request.depth = static_cast<int32_t>(fields.integer_or("depth", 0, max_int32, 0));
    request.restore = read_restore(fields, engine);
    request.setup.profile_operators = read_profile(fields, engine);
    request.setup.sequences = read_sequences(fields, engine, request.setup.batch);
    request.read_each = !fields.boolean_or("shared_prompt", true);
    request.warmup_tokens = static_cast<int32_t>(fields.integer_or("warmup_tokens", 0, max_int32, 16));
    request.turn_pause_ms = static_cast<int32_t>(fields.integer_or("turn_pause_ms", 0, max_int32, 0));
    request.conversation_pause_ms = static_cast<int32_t>(fields.integer_or("conversation_pause_ms", 0, max_int32, 0));
    request.sync_mark = read_sync_mark(fields.optional("sync_mark"));
    request.thinking = read_thinking(fields.optional("thinking"));
    request.speculation = read_speculation(fields, engine);
    request.serve = read_peer(fields, "serve");
    request.ask = read_peer(fields, "ask");
    if ((request.serve || request.ask) && request.setup.sequences > 1) {
        fields.wrong("sequences", "several are not told to another device");
    }
    fields.finish();
    return request;
}

}  // namespace melt
