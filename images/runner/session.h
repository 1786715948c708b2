// Holds the conversations of a request and writes down what happens.
#pragma once

#include "events.h"
#include "drafter.h"
#include "engine.h"
#include "link.h"
#include "profile.h"
#include "request.h"
#include "thinking.h"
#include "token_sampler.h"

#include <string>
#include <vector>

namespace melt {

class Session {
public:
    // `drafter` may be null; `saved` is where a file for a context may be written.
    Session(const Request & request, Engine & engine, const ModelFacts & model, const ContextFacts & context, Events & events,
            Drafter * drafter, std::string saved);

    void warm_up();
    // Hold the conversations; with an asker, who may be null, it is they who put the prompts and are told the answers. Throws
    // Failure(decode) or, when a signal asks for it, Stopped.
    void run(Link * asker);
    // What an operator profile found, where one was asked for.
    void write_profile() { profile.write(events); }

private:
    enum class Stop { eog, length, context };

    void converse(size_t conversation);
    TokenSampler make_sampler() const;
    void fill();
    void restore();
    std::vector<Token> tokens_of(const Prompt & prompt, bool first) const;
    Stop take_turn(size_t conversation, size_t turn);
    Stop generate(int32_t max_tokens, size_t & n_generated, std::string & text);
    // Let whoever asks see a token of `t`.
    void tell(int64_t t, Token token);
    // Append tokens to the context, or to each of so many, and wait for the logits after the last one.
    void decode(const std::vector<Token> & tokens, int32_t sequences = 1);
    // The same for several sequences, of which the first one's tokens are told.
    Stop generate_abreast(int32_t max_tokens, size_t & n_generated, std::string & text);
    // Have the logits after a token of the answer, of which `wanted` more are to come: those of a draft that foresaw it, or new ones.
    void advance(Token token, size_t wanted);
    // Take out of the context what was foreseen in vain.
    void forget_draft();
    void clear();
    int32_t left() const { return request.setup.context - n_past; }  // positions
    bool is_end(Token token) const;
    void end_turn(size_t conversation, size_t turn, size_t n_prompt, size_t n_generated, Stop stop, const std::string & text);

    const Request & request;
    Engine & engine;
    const int32_t n_vocab;
    const size_t n_batch;
    Events & events;
    Drafter * const drafter;
    const std::string saved;
    OperatorProfile profile;
    const std::vector<Token> ends;  // of an answer, sorted
    TokenSampler sampler;
    Thinking thinking;
    int32_t n_past = 0;
    const float * logits = nullptr;
    std::vector<Token> draft;  // in the engine's context, beyond n_past
    size_t n_right = 0;        // of the draft
    struct {
        int64_t drafted, accepted, ns;
    } speculated{};  // in this turn
    Link * asker = nullptr;
    int64_t asked_ns = 0;  // when a prompt had arrived
    int64_t first_ns = 0;  // when its answer began
    std::vector<Token> history;  // of the conversation: prompts and answers
};

}  // namespace melt
