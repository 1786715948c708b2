#include "session.h"

#include "clock.h"
#include "failure.h"
#include "pause.h"
#include "signals.h"

#include <algorithm>

namespace melt {

namespace {

std::vector<Token> sorted(std::vector<Token> tokens) {
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

}  // namespace

Session::Session(const Request & request, Engine & engine, const ModelFacts & model, const ContextFacts & context,
                 Events & events)
    : request(request), engine(engine), n_vocab(model.n_vocab), n_batch(static_cast<size_t>(context.n_batch)), events(events),
      ends(sorted(engine.end_of_generation())), sampler(request.sampling, request.ignore_eos ? ends : std::vector<Token>{}),
      thinking(request.thinking, engine) {}

// Half of the tokens as a prompt, the others one by one, so that both ways of decoding have been walked.
void Session::warm_up() {
    const int32_t count = std::min(request.warmup_tokens, request.setup.context);
    if (count == 0) {
        return;
    }
    events.add("warmup_begin", {{"n", count}});
    const std::vector<Token> source = engine.tokenize(request.conversations.front().front(), true);
    std::vector<Token> tokens;
    for (size_t i = 0; i < static_cast<size_t>(count) && !source.empty(); ++i) {
        tokens.push_back(source[i % source.size()]);
    }
    const auto middle = tokens.begin() + static_cast<std::ptrdiff_t>((tokens.size() + 1) / 2);
    decode({tokens.begin(), middle});
    for (auto token = middle; token != tokens.end(); ++token) {
        decode({*token});
    }
    clear();
    events.add("warmup_end");
    events.flush();
}

void Session::run() {
    for (size_t conversation = 0; conversation < request.conversations.size(); ++conversation) {
        if (conversation > 0) {
            pause_for_ms(request.conversation_pause_ms);
        }
        converse(conversation);
    }
}

void Session::converse(size_t conversation) {
    events.add("conversation_begin", {{"c", conversation}});
    clear();
    history.clear();
    sampler.seed(request.sampling.seed + conversation);
    const size_t turns = request.conversations[conversation].size();
    for (size_t turn = 0; turn < turns; ++turn) {
        if (turn > 0) {
            pause_for_ms(request.turn_pause_ms);
        }
        const Stop stop = take_turn(conversation, turn);
        if (stop == Stop::context) {
            break;
        }
        // An answer that was cut off stays in the conversation whole; its last token has not been decoded yet.
        if (stop == Stop::length && turn + 1 < turns && left() > 0) {
            decode({history.back()});
        }
    }
    events.add("conversation_end", {{"c", conversation}});
    events.flush();
}

Session::Stop Session::take_turn(size_t conversation, size_t turn) {
    events.add("turn_begin", {{"c", conversation}, {"i", turn}});
    const std::vector<Token> prompt = engine.tokenize(request.conversations[conversation][turn], turn == 0);
    if (prompt.empty()) {
        throw Failure(ExitCode::decode, "turn " + std::to_string(turn) + " of conversation " +
                                            std::to_string(conversation) + " has no tokens");
    }
    size_t n_generated = 0;
    std::string text;
    Stop stop = Stop::context;
    if (prompt.size() <= static_cast<size_t>(left())) {
        history.insert(history.end(), prompt.begin(), prompt.end());
        profile.enter(OperatorProfile::Phase::prefill);
        events.add("prefill_begin", {{"n", prompt.size()}});
        decode(prompt);
        events.add("prefill_end");
        profile.enter(OperatorProfile::Phase::generation);
        thinking.begin_turn(request.conversations[conversation][turn], events);
        stop = generate(n_generated, text);
        profile.enter(OperatorProfile::Phase::none);
    }
    end_turn(conversation, turn, prompt.size(), n_generated, stop, text);
    return stop;
}

Session::Stop Session::generate(size_t & n_generated, std::string & text) {
    std::vector<Token> last(1);
    for (;;) {
        const std::optional<Token> forced = thinking.forced();
        last[0] = forced ? *forced : sampler.sample(logits, n_vocab, history);
        const size_t index = n_generated++;
        events.add_token(monotonic_ns(), static_cast<int64_t>(index), last[0], forced ? std::nullopt : sampler.margin());
        if (!forced && is_end(last[0])) {
            return Stop::eog;
        }
        history.push_back(last[0]);
        const std::string piece = engine.piece(last[0]);
        text += piece;
        thinking.add(index, last[0], piece, events);
        if (n_generated == static_cast<size_t>(request.max_tokens)) {
            return Stop::length;
        }
        if (left() == 0) {
            return Stop::context;
        }
        decode(last);
    }
}

void Session::decode(const std::vector<Token> & tokens) {
    const int64_t begin = monotonic_ns();
    for (size_t done = 0; done < tokens.size();) {
        throw_if_stopped();
        const size_t count = std::min(n_batch, tokens.size() - done);
        engine.decode(tokens.data() + done, count);
        done += count;
        n_past += static_cast<int32_t>(count);
    }
    if (!tokens.empty()) {
        logits = engine.logits();
    }
    const int64_t ns = monotonic_ns() - begin;
    if (request.setup.profile_operators) {
        profile.add(ns, engine.operations());
    }
}

void Session::clear() {
    engine.clear();
    n_past = 0;
}

bool Session::is_end(Token token) const { return std::binary_search(ends.begin(), ends.end(), token); }

void Session::end_turn(size_t conversation, size_t turn, size_t n_prompt, size_t n_generated, Stop stop,
                       const std::string & text) {
    static const char * const names[] = {"eog", "length", "context"};
    Json::Object fields{{"c", conversation},
                        {"i", turn},
                        {"n_prompt", n_prompt},
                        {"n_gen", n_generated},
                        {"n_past", n_past},
                        {"stop", names[static_cast<int>(stop)]},
                        {"text", text}};
    if (request.thinking) {
        fields.emplace_back("answer", n_generated > 0 ? thinking.answer() : "");
    }
    events.add("turn_end", fields);
    events.add_memory("turn");
    events.flush();
}

}  // namespace melt
