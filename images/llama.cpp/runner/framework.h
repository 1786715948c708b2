// What the runner needs of llama.cpp. Everything in which its releases differ is in framework.cpp and nowhere else.
#pragma once

#include "profile.h"
#include "sampler.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct llama_context;
struct llama_model;

namespace melt {

// CPU features and compile options as the framework itself reports them.
std::string system_info();

class Model {
public:
    // Throws Failure(model), or Stopped when a signal arrives meanwhile.
    Model(const std::string & path, int32_t gpu_layers, bool mmap);
    ~Model();
    Model(const Model &) = delete;
    Model & operator=(const Model &) = delete;

    uint64_t n_params() const;
    int32_t n_vocab() const;
    int32_t n_ctx_train() const;

    // Special tokens in `text` are parsed; `first` puts a BOS token in front where the model asks for one.
    std::vector<Token> tokenize(const std::string & text, bool first) const;

    // The token's bytes; empty for control tokens. May be part of a character.
    std::string piece(Token token) const;

    // Every token that ends an answer.
    const std::vector<Token> & end_of_generation() const { return ends; }
    bool is_end(Token token) const;

    // Bytes of keys and values for `n_ctx` positions in every layer; nothing where the model has no such cache.
    std::optional<uint64_t> kv_bytes(int32_t n_ctx) const;

    llama_model * handle() const { return model; }

private:
    std::optional<std::string> metadata(const std::string & key) const;

    llama_model * model = nullptr;
    std::vector<Token> ends;
};

class Context {
public:
    // Throws Failure(context). With a profile, every computed node is reported to it.
    Context(const Model & model, const Request & request, OperatorProfile * profile);
    ~Context();
    Context(const Context &) = delete;
    Context & operator=(const Context &) = delete;

    // Positions that were asked for, and how many the framework made of them.
    int32_t limit() const { return positions; }
    int32_t n_ctx() const;
    int32_t n_batch() const;

    int32_t n_past() const { return past; }

    // Append tokens, at most n_batch() at a time; throws Failure(decode), or Stopped between two batches.
    void decode(const std::vector<Token> & tokens);

    // Logits after the last token that was decoded.
    const float * logits() const;

    void clear();

private:
    struct Threads;

    std::unique_ptr<Threads> threads;
    llama_context * context = nullptr;
    int32_t positions;
    int32_t past = 0;
};

}  // namespace melt
