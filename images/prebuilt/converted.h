// What all engines of converted models have in common: a folder with the engine's own files, the tokens and some facts; names of nodes
// that begin with a layer's; and the steps of a run that do not depend on the engine.
#pragma once

#include "engine.h"
#include "vocabulary.h"

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>

namespace melt {

struct Converted {
    // Failure(model) where the folder does not hold all of a model: the engine's files and the two below.
    Converted(const std::string & path, std::initializer_list<const char *> files);

    // Count a file too; its size, or Failure(model).
    uint64_t add(const std::string & name);

    std::string path, vocabulary_file;
    uint64_t bytes = 0;  // of all files
    int64_t layers, kv_heads, head, vocabulary, context, parameters;
};

// What a node belongs to, the same in every layer: its name without the number of that.
std::string module_of(const std::string & node);

class ConvertedEngine : public Engine {
public:
    bool profiles_operators() const override { return true; }
    void check(const std::string & model) override { folder.emplace(model, files()); }
    ModelFacts load(const std::string & model) override;
    ContextFacts open(const Setup & setup) override;
    std::vector<Token> tokenize(const std::string & text, bool first) const override { return vocabulary->tokenize(text, first); }
    std::string piece(Token token) const override { return vocabulary->piece(token); }
    std::vector<Token> end_of_generation() const override { return vocabulary->end_of_generation(); }
    void decode(const Token * tokens, size_t count) override;
    void clear() override { past = 0; }

protected:
    // What the engine's own part of a folder is.
    virtual std::initializer_list<const char *> files() const = 0;
    virtual void load_code(const std::string & model) = 0;
    // Make ready for `n_ctx` positions; the bytes of keys and values where they are known.
    virtual std::optional<uint64_t> open_cache(const Setup & setup) = 0;
    // Compute the tokens that follow the `past` ones.
    virtual void compute(const Token * tokens, size_t count) = 0;

    // Memory for keys and values, which are 0: Failure(context).
    char * reserve(uint64_t size);

    std::optional<Converted> folder;
    int32_t n_ctx = 0, past = 0;

private:
    std::unique_ptr<Vocabulary> vocabulary;
    std::unique_ptr<void, void (*)(void *)> keys_and_values{nullptr, std::free};
};

}  // namespace melt
