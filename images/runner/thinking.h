// Tells a reasoning model's thinking from its answer by the model's markers, and ends thinking that has taken its budget.
#pragma once

#include "events.h"
#include "request.h"

#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace melt {

class Thinking {
public:
    // `markers` may be nothing: then nothing is told.
    Thinking(const std::optional<ThinkingMarkers> & markers, const Engine & engine);

    // Before an answer. Templates that open the thinking leave an open marker at the end of the prompt.
    void begin_turn(const std::string & prompt, Events & events);
    // The token that must come next, where the budget is used up.
    std::optional<Token> forced();
    // After token number `index` of the answer.
    void add(size_t index, Token token, const std::string & piece, Events & events);
    // What came after the thinking, white space in front of it left out.
    const std::string & answer() const { return text_of_answer; }

private:
    enum class State { before, inside, answer };

    // What was sampled since thinking began, or since the turn did: some markers are texts, others control tokens without one.
    struct Seen {
        std::vector<Token> tokens;
        std::string text;
    };

    static bool holds(const Seen & seen, const std::string & marker, const std::vector<Token> & tokens);
    bool may_begin() const;

    const std::optional<ThinkingMarkers> markers;
    std::vector<Token> begin, end;
    State state = State::answer;
    Seen seen;
    int64_t spent = 0;  // tokens of thinking in this turn
    std::deque<Token> queue;
    bool cut = false;
    std::string text_of_answer;
};

}  // namespace melt
