// request.json, version 1.
#pragma once

#include "engine.h"
#include "link.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace melt {

struct Sampling {
    bool greedy;
    double temperature;
    int32_t top_k;  // 0 keeps every token
    double top_p;
    double repeat_penalty;
    int32_t repeat_last_n;
    uint64_t seed;
};

// Times of full load with rests before, between and after them; no pulse: no mark.
struct SyncMark {
    std::vector<int32_t> pulses_ms;
    int32_t rest_ms;
};

// Texts around the thinking of a reasoning model, and how much it may think in a turn.
struct ThinkingMarkers {
    std::string begin;
    std::string end;
    std::optional<int64_t> max_tokens;
};

// What is put to the model: a text, or, where that is empty, so many tokens that the runner makes up.
struct Prompt {
    std::string text;
    int32_t tokens;
    int32_t max_tokens;  // of the answer
};

// How tokens are foreseen that the model then checks, several in one step.
struct Speculation {
    int32_t tokens;     // foreseen at once, at most
    int32_t ngram;      // by what followed so many of the last tokens before; 0: by a model
    std::string model;
    std::unique_ptr<Engine> engine;  // of that model, with its options read
};

// What of the model's files is to be in the page cache when loading begins.
enum class Caching { as_is, cold, warm };

struct Request {
    std::string model;
    Caching caching;
    Setup setup;
    int32_t max_tokens;
    bool ignore_eos;
    Sampling sampling;
    std::vector<std::vector<Prompt>> conversations;
    int32_t depth;  // tokens that a conversation's context holds before its first turn
    bool restore;   // they are read from a file, in that turn
    bool read_each;  // every sequence reads a prompt for itself, all at once; else one does, and the others get what it holds
    int32_t warmup_tokens;
    int32_t turn_pause_ms;  // after each turn that another one follows
    int32_t conversation_pause_ms;
    SyncMark sync_mark;
    std::optional<ThinkingMarkers> thinking;
    std::optional<Speculation> speculation;
    std::optional<Peer> serve;  // hold the conversations with whoever asks there
    std::optional<Peer> ask;    // have the engine over there hold them
};

// Throws Failure(bad_request), naming the field, where the file cannot be read or anything in it is wrong. The engine takes the
// fields that are its own.
Request read_request(const std::string & path, Engine & engine);

}  // namespace melt
