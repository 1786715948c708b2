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
                 Events & events, Drafter * drafter, std::string saved)
    : request(request), engine(engine), n_vocab(model.n_vocab), n_batch(static_cast<size_t>(context.n_batch)), events(events),
      drafter(drafter), saved(std::move(saved)),
      ends(sorted(engine.end_of_generation())), sampler(make_sampler()),
      thinking(request.thinking, engine) {}

TokenSampler Session::make_sampler() const {
    return {request.sampling, request.ignore_eos ? ends : std::vector<Token>{}};
}

// Half of the tokens as a prompt, the others one by one, so that both ways of decoding have been walked.
void Session::warm_up() {
    const int32_t count = std::min(request.warmup_tokens, request.setup.context);
    if (count == 0) {
        return;
    }
    events.add("warmup_begin", {{"n", count}});
    const std::vector<Token> source = tokens_of(request.conversations.front().front(), true);
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

void Session::run(Link * asker) {
    this->asker = asker;
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
    fill();
    if (asker != nullptr) {
        asker->send({{"conversation", conversation}});
    }
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

// Before the first turn, which is not to be charged for it.
void Session::fill() {
    if (request.depth == 0) {
        return;
    }
    if (request.depth > request.setup.context) {
        throw Failure(ExitCode::decode, "a context of " + std::to_string(request.setup.context) + " tokens does not hold the " +
                                            std::to_string(request.depth) + " that are to be in it");
    }
    const std::vector<Token> tokens = tokens_of({"", request.depth, 0}, true);
    history = tokens;
    events.add("fill_begin", {{"n", tokens.size()}});
    decode(tokens);
    events.add("fill_end");
    if (request.restore) {
        events.add("save_begin");
        const uint64_t bytes = engine.save(saved);
        events.add("save_end", {{"bytes", bytes}});
    }
    events.flush();
}

void Session::restore() {
    const int32_t filled = n_past;
    clear();
    events.add("restore_begin");
    engine.restore(saved);
    events.add("restore_end");
    n_past = filled;
}

// Made-up tokens are the same for every conversation and engine of one vocabulary: any but those that end an answer.
std::vector<Token> Session::tokens_of(const Prompt & prompt, bool first) const {
    if (!prompt.text.empty()) {
        return engine.tokenize(prompt.text, first);
    }
    std::vector<Token> tokens = first ? engine.tokenize("", true) : std::vector<Token>{};
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(prompt.tokens)));
    for (uint64_t state = request.sampling.seed; tokens.size() < static_cast<size_t>(prompt.tokens);) {
        state = state * 6364136223846793005U + 1442695040888963407U;  // Knuth's MMIX
        const auto token = static_cast<Token>((state >> 33) % static_cast<uint64_t>(n_vocab));
        if (!is_end(token)) {
            tokens.push_back(token);
        }
    }
    return tokens;
}

Session::Stop Session::take_turn(size_t conversation, size_t turn) {
    Prompt asked = request.conversations[conversation][turn];
    if (asker != nullptr) {
        const Json said = asker->receive();
        asked_ns = monotonic_ns();
        const Json * text = said.find("text");
        if (text == nullptr || text->as<std::string>() == nullptr) {
            throw Failure(ExitCode::decode, "link: expected a prompt, got " + said.dump());
        }
        asked.text = *text->as<std::string>();
    }
    events.add("turn_begin", {{"c", conversation}, {"i", turn}});
    if (request.restore && request.depth > 0 && turn == 0) {
        restore();
    }
    const std::vector<Token> prompt = tokens_of(asked, turn == 0 && request.depth == 0);
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
        const int32_t readers = request.read_each ? request.setup.sequences : 1;
        if (readers > 1) {
            engine.fork(readers);
        }
        events.add("prefill_begin", {{"n", prompt.size()}});
        decode(prompt, readers);
        events.add("prefill_end");
        profile.enter(OperatorProfile::Phase::generation);
        thinking.begin_turn(asked.text, events);
        stop = request.setup.sequences > 1 ? generate_abreast(asked.max_tokens, n_generated, text)
                                           : generate(asked.max_tokens, n_generated, text);
        profile.enter(OperatorProfile::Phase::none);
        forget_draft();
    }
    end_turn(conversation, turn, prompt.size(), n_generated, stop, text);
    return stop;
}

Session::Stop Session::generate(int32_t max_tokens, size_t & n_generated, std::string & text) {
    std::vector<Token> last(1);
    for (;;) {
        const std::optional<Token> forced = thinking.forced();
        last[0] = forced ? *forced : sampler.sample(logits, n_vocab, history);
        const size_t index = n_generated++;
        const int64_t t = monotonic_ns();
        events.add_token(t, static_cast<int64_t>(index), last[0], forced ? std::nullopt : sampler.margin());
        tell(t, last[0]);
        if (!forced && is_end(last[0])) {
            return Stop::eog;
        }
        history.push_back(last[0]);
        const std::string piece = engine.piece(last[0]);
        text += piece;
        thinking.add(index, last[0], piece, events);
        if (n_generated == static_cast<size_t>(max_tokens)) {
            return Stop::length;
        }
        if (left() == 0) {
            return Stop::context;
        }
        advance(last[0], static_cast<size_t>(max_tokens) - n_generated);
    }
}

Session::Stop Session::generate_abreast(int32_t max_tokens, size_t & n_generated, std::string & text) {
    const auto count = static_cast<size_t>(request.setup.sequences);
    std::vector<TokenSampler> samplers(count, make_sampler());
    std::vector<std::vector<Token>> histories(count, history);
    std::vector<Token> last(count);
    for (size_t i = 0; i < count; ++i) {
        samplers[i].seed(request.sampling.seed + i);
    }
    if (!request.read_each) {
        engine.fork(request.setup.sequences);
    }
    for (;;) {
        for (size_t i = 0; i < count; ++i) {
            last[i] = samplers[i].sample(n_generated == 0 ? logits : engine.logits_after(i), n_vocab, histories[i]);
            histories[i].push_back(last[i]);
        }
        events.add_token(monotonic_ns(), static_cast<int64_t>(n_generated++), last[0], samplers[0].margin());
        text += engine.piece(last[0]);
        const bool done = n_generated == static_cast<size_t>(max_tokens);
        if (done || left() == 0) {
            engine.fork(1);
            history = histories[0];
            return done ? Stop::length : Stop::context;
        }
        throw_if_stopped();
        const int64_t begin = monotonic_ns();
        engine.decode_abreast(last);
        ++n_past;
        if (request.setup.profile_operators) {
            engine.logits_after(0);
            profile.add(monotonic_ns() - begin, engine.operations());
        }
    }
}

void Session::tell(int64_t t, Token token) {
    if (asker != nullptr) {
        // What a reader over there would be shown; a character in parts arrives with U+FFFD, and whole when the turn ends.
        asker->send({{"token", token}, {"text", engine.piece(token)}});
        first_ns = first_ns == 0 ? t : first_ns;
    }
}

void Session::advance(Token token, size_t wanted) {
    if (n_right < draft.size() && draft[n_right] == token) {
        ++n_past;
        ++speculated.accepted;
        logits = engine.logits_after(++n_right);
        return;
    }
    forget_draft();
    if (drafter != nullptr && wanted > 1 && left() > 1) {
        const size_t most = std::min({static_cast<size_t>(request.speculation->tokens), wanted - 1,
                                      static_cast<size_t>(left()) - 1, n_batch - 1});
        const int64_t begin = monotonic_ns();
        draft = most == 0 ? std::vector<Token>{} : drafter->draft(history, most);
        speculated.ns += monotonic_ns() - begin;
        speculated.drafted += static_cast<int64_t>(draft.size());
    }
    if (draft.empty()) {
        return decode({token});
    }
    throw_if_stopped();
    std::vector<Token> step{token};
    step.insert(step.end(), draft.begin(), draft.end());
    const int64_t begin = monotonic_ns();
    engine.decode_each(step.data(), step.size());
    logits = engine.logits_after(0);
    ++n_past;
    if (request.setup.profile_operators) {
        profile.add(monotonic_ns() - begin, engine.operations());
    }
}

void Session::forget_draft() {
    if (n_right < draft.size()) {
        engine.rewind(n_past);
    }
    draft.clear();
    n_right = 0;
}

void Session::decode(const std::vector<Token> & tokens, int32_t sequences) {
    const int64_t begin = monotonic_ns();
    const size_t most = n_batch / static_cast<size_t>(sequences);
    size_t count = 0;
    for (size_t done = 0; done < tokens.size();) {
        throw_if_stopped();
        count = std::min(most, tokens.size() - done);
        if (sequences > 1) {
            engine.decode_alike(tokens.data() + done, count, sequences);
        } else {
            engine.decode(tokens.data() + done, count);
        }
        done += count;
        n_past += static_cast<int32_t>(count);
    }
    if (!tokens.empty()) {
        logits = sequences > 1 ? engine.logits_after(count - 1) : engine.logits();
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
    if (request.setup.sequences > 1) {
        fields.emplace_back("sequences", request.setup.sequences);
        fields.emplace_back("readers", request.read_each ? request.setup.sequences : 1);
    }
    if (drafter != nullptr) {
        fields.emplace_back("drafted", speculated.drafted);
        fields.emplace_back("accepted", speculated.accepted);
        fields.emplace_back("draft_ns", speculated.ns);
        speculated = {};
    }
    if (request.thinking) {
        fields.emplace_back("answer", n_generated > 0 ? thinking.answer() : "");
    }
    events.add("turn_end", fields);
    if (asker != nullptr) {
        fields.emplace_back("served_ns", monotonic_ns() - asked_ns);
        fields.emplace_back("first_ns", first_ns == 0 ? Json() : Json(first_ns - asked_ns));
        first_ns = 0;
        asker->send(std::move(fields));
    }
    events.add_memory("turn");
    events.flush();
}

}  // namespace melt
