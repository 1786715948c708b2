// What a framework implements to be measured: load a model, tokenize, compute. All else that docs/runner.md asks for (requests,
// events, turns, limits, sampling of tokens, memory, signals) is done by the files beside this one, alike for every framework.
#pragma once

#include "fields.h"
#include "json.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace melt {

using Token = int32_t;

// For the `hello` event.
struct Identity {
    std::string framework;  // as manifests name it
    std::string commit;     // of the release
    std::string isa;        // the variant that this program was built for
    std::string system;     // CPU features and compile options, as the framework itself reports them
};

// For the `load_end` event.
struct ModelFacts {
    uint64_t bytes;
    uint64_t n_params;
    int32_t n_vocab;
    int32_t n_ctx_train;
};

// How a request wants the model used.
struct Setup {
    int32_t context;  // positions
    int32_t threads;
    int32_t batch;           // tokens of a prompt that are computed at once, at most
    bool profile_operators;  // report them in operations()
    int32_t sequences;       // that go on abreast, each with a context of its own
};

// For the `context` event: what the framework made of that.
struct ContextFacts {
    int32_t n_ctx;
    int32_t n_batch;
    std::optional<uint64_t> kv_bytes;  // of keys and values; nothing where the model has no such cache
};

// One operator that was computed.
struct Operation {
    std::string name;    // the framework's
    std::string module;  // what it belongs to, the same in every layer; may be empty
    int64_t begin;       // monotonic_ns()
    int64_t ns;
};

// Functions are called in the order in which they stand here. What cannot be done is thrown as a Failure of the step; whoever
// works for long calls throw_if_stopped() (signals.h) now and then.
class Engine {
public:
    virtual ~Engine() = default;

    virtual Identity identity() const = 0;

    // The framework's own fields of request.json; a field that nobody takes is refused.
    virtual void read_options(Fields &) {}
    virtual bool profiles_operators() const { return false; }

    // Look at a file or folder before it is loaded, where the framework itself would crash on a damaged one: Failure(model).
    virtual void check(const std::string & /*model*/) {}
    // Load the weights, and nothing that depends on the setup: Failure(model).
    virtual ModelFacts load(const std::string & model) = 0;
    // Make ready to compute: Failure(context).
    virtual ContextFacts open(const Setup & setup) = 0;
    // What is in effect now, by the names of the request and others; for the `effective` event, which is left out where this is
    // empty.
    virtual Json::Object effective() const { return {}; }

    // Texts hold special tokens, to be parsed; `first` puts a BOS token in front where the model asks for one.
    virtual std::vector<Token> tokenize(const std::string & text, bool first) const = 0;
    // A token's bytes, maybe a part of a character; empty for control tokens.
    virtual std::string piece(Token token) const = 0;
    // Every token that ends an answer.
    virtual std::vector<Token> end_of_generation() const = 0;

    // Append tokens to the context, at most `n_batch` of them; may return before they are computed: Failure(decode).
    virtual void decode(const Token * tokens, size_t count) = 0;
    // Wait for that; a number for each token of the vocabulary, after the last token. Valid until the next call of decode().
    virtual const float * logits() = 0;
    // With `profile_operators`: what was computed since the last call of this.
    virtual std::vector<Operation> operations() { return {}; }
    // Empty the context.
    virtual void clear() = 0;

    // Whether what is in the context can be taken out of it again: speculative decoding needs these three.
    virtual bool rewinds() const { return false; }
    // decode(), with logits after each of the tokens.
    virtual void decode_each(const Token * /*tokens*/, size_t /*count*/) {}
    // After the i-th of them.
    virtual const float * logits_after(size_t /*i*/) { return nullptr; }
    // Keep the first `count` tokens of the context: Failure(decode).
    virtual void rewind(int32_t /*count*/) {}

    // Whether several sequences can go on abreast.
    virtual bool holds_sequences() const { return false; }
    // Have so many sequences, each with what the first one holds.
    virtual void fork(int32_t /*count*/) {}
    // Append one token to each sequence; logits_after(i) are those of the i-th: Failure(decode).
    virtual void decode_abreast(const std::vector<Token> & /*tokens*/) {}
    // Append the same tokens to each of so many sequences, `n_batch` of all together at most; logits_after(count - 1) are those of
    // the first one: Failure(decode).
    virtual void decode_alike(const Token * /*tokens*/, size_t /*count*/, int32_t /*sequences*/) {}

    // Whether a filled context can be written to a file and read from it.
    virtual bool saves_context() const { return false; }
    // Write all that the context holds; the file's bytes: Failure(context).
    virtual uint64_t save(const std::string & /*path*/) { return 0; }
    // Put that in the place of what the context holds, as save() of the same process found it: Failure(context).
    virtual void restore(const std::string & /*path*/) {}
};

// Defined by the framework.
std::unique_ptr<Engine> make_engine();

}  // namespace melt
