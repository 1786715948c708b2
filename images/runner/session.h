// Holds the conversations of a request and writes down what happens.
#pragma once

#include "events.h"
#include "engine.h"
#include "profile.h"
#include "request.h"
#include "thinking.h"
#include "token_sampler.h"

#include <string>
#include <vector>

namespace melt {

class Session {
public:
    Session(const Request & request, Engine & engine, const ModelFacts & model, const ContextFacts & context, Events & events);

    void warm_up();
    // Throws Failure(decode) or, when a signal asks for it, Stopped.
    void run();
    // What an operator profile found, where one was asked for.
    void write_profile() { profile.write(events); }

private:
    enum class Stop { eog, length, context };

    void converse(size_t conversation);
    Stop take_turn(size_t conversation, size_t turn);
    Stop generate(size_t & n_generated, std::string & text);
    // Append tokens to the context and wait for the logits after the last one.
    void decode(const std::vector<Token> & tokens);
    void clear();
    int32_t left() const { return request.setup.context - n_past; }  // positions
    bool is_end(Token token) const;
    void end_turn(size_t conversation, size_t turn, size_t n_prompt, size_t n_generated, Stop stop, const std::string & text);

    const Request & request;
    Engine & engine;
    const int32_t n_vocab;
    const size_t n_batch;
    Events & events;
    OperatorProfile profile;
    const std::vector<Token> ends;  // of an answer, sorted
    TokenSampler sampler;
    Thinking thinking;
    int32_t n_past = 0;
    const float * logits = nullptr;
    std::vector<Token> history;  // of the conversation: prompts and answers
};

}  // namespace melt
