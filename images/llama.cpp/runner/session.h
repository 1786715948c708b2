// Holds the conversations of a request and writes down what happens.
#pragma once

#include "events.h"
#include "framework.h"
#include "profile.h"
#include "request.h"
#include "sampler.h"

#include <string>
#include <vector>

namespace melt {

class Session {
public:
    Session(const Request & request, const Model & model, Context & context, OperatorProfile & profile, Events & events);

    void warm_up();
    // Throws Failure(decode) or, when a signal asks for it, Stopped.
    void run();

private:
    enum class Stop { eog, length, context };

    void converse(size_t conversation);
    Stop take_turn(size_t conversation, size_t turn);
    Stop generate(size_t & n_generated, std::string & text);
    void decode(const std::vector<Token> & tokens);
    void end_turn(size_t conversation, size_t turn, size_t n_prompt, size_t n_generated, Stop stop, const std::string & text);

    const Request & request;
    const Model & model;
    Context & context;
    OperatorProfile & profile;
    Events & events;
    Sampler sampler;
    std::vector<Token> history;  // of the conversation: prompts and answers
};

}  // namespace melt
