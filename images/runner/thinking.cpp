#include "thinking.h"

#include <algorithm>

namespace melt {
namespace {

// Where the text proper begins.
size_t blanks(const std::string & text) { return std::min(text.find_first_not_of(" \t\r\n"), text.size()); }

}  // namespace

Thinking::Thinking(const std::optional<ThinkingMarkers> & markers, const Engine & engine) : markers(markers) {
    if (markers) {
        begin = engine.tokenize(markers->begin, false);
        end = engine.tokenize(markers->end, false);
    }
}

void Thinking::begin_turn(const std::string & prompt, Events & events) {
    if (!markers) {
        return;
    }
    seen = {};
    spent = 0;
    queue.clear();
    cut = false;
    text_of_answer.clear();
    const size_t opened = prompt.rfind(markers->begin), closed = prompt.rfind(markers->end);
    const bool open = opened != std::string::npos && (closed == std::string::npos || closed < opened);
    state = open ? State::inside : State::before;
    if (open) {
        events.add("thinking_begin", {{"i", 0}});
    }
}

std::optional<Token> Thinking::forced() {
    if (state != State::inside) {
        return std::nullopt;
    }
    if (queue.empty() && !cut && markers->max_tokens && spent >= *markers->max_tokens) {
        queue.assign(end.begin(), end.end());
        cut = true;
    }
    if (queue.empty()) {
        return std::nullopt;
    }
    const Token token = queue.front();
    queue.pop_front();
    return token;
}

void Thinking::add(size_t index, Token token, const std::string & piece, Events & events) {
    if (!markers) {
        return;
    }
    if (state == State::answer) {
        text_of_answer += piece;
        return;
    }
    seen.tokens.push_back(token);
    seen.text += piece;
    if (state == State::inside) {
        spent += 1;
        // What was forced is the end, however the engine writes it.
        if (holds(seen, markers->end, end) || (cut && queue.empty())) {
            state = State::before;
            seen = {};
            events.add("thinking_end", {{"i", index + 1}, {"cut", cut}});
        }
    } else if (holds(seen, markers->begin, begin)) {
        state = State::inside;
        seen = {};
        events.add("thinking_begin", {{"i", index + 1}});
    } else if (!may_begin()) {
        state = State::answer;
        text_of_answer = seen.text.substr(blanks(seen.text));
        events.add("answer_begin", {{"i", index}});
    }
}

bool Thinking::holds(const Seen & seen, const std::string & marker, const std::vector<Token> & tokens) {
    return seen.text.find(marker) != std::string::npos ||
           (!tokens.empty() && tokens.size() <= seen.tokens.size() &&
            std::equal(tokens.rbegin(), tokens.rend(), seen.tokens.rbegin()));
}

// Whether what was seen so far is nothing yet, or the beginning of a marker.
bool Thinking::may_begin() const {
    const std::string text = seen.text.substr(blanks(seen.text));
    return markers->begin.compare(0, text.size(), text) == 0;
}

}  // namespace melt
