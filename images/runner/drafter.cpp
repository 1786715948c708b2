#include "drafter.h"

#include "failure.h"
#include "signals.h"

#include <algorithm>

namespace melt {
namespace {

// What followed the last tokens where they stood before, the last time that they did.
class Lookup : public Drafter {
public:
    explicit Lookup(int32_t ngram) : ngram(static_cast<size_t>(ngram)) {}

    std::vector<Token> draft(const std::vector<Token> & history, size_t most) override {
        if (history.size() <= ngram) {
            return {};
        }
        const auto last = history.end() - static_cast<std::ptrdiff_t>(ngram);
        const auto before = std::find_end(history.begin(), history.end() - 1, last, history.end());
        if (before == history.end() - 1) {
            return {};
        }
        const auto next = before + static_cast<std::ptrdiff_t>(ngram);
        return {next, next + std::min(static_cast<std::ptrdiff_t>(most), history.end() - next)};
    }

private:
    const size_t ngram;
};

// The most probable tokens of another model, which has a context of its own.
class Companion : public Drafter {
public:
    Companion(std::unique_ptr<Engine> engine, int32_t n_vocab, size_t n_batch)
        : engine(std::move(engine)), n_vocab(n_vocab), n_batch(n_batch) {}

    std::vector<Token> draft(const std::vector<Token> & history, size_t most) override {
        const auto differs = std::mismatch(known.begin(), known.end(), history.begin(), history.end()).second;
        // The last token is always decoded anew: its logits are needed.
        const size_t same = std::min(static_cast<size_t>(differs - history.begin()), history.size() - 1);
        if (same < known.size()) {
            engine->rewind(static_cast<int32_t>(same));
        }
        known = history;
        for (size_t done = same; done < history.size();) {
            const size_t count = std::min(n_batch, history.size() - done);
            engine->decode(history.data() + done, count);
            done += count;
        }
        std::vector<Token> drafted;
        for (;;) {
            const float * logits = engine->logits();
            drafted.push_back(static_cast<Token>(std::max_element(logits, logits + n_vocab) - logits));
            if (drafted.size() == most) {
                return drafted;
            }
            engine->decode(&drafted.back(), 1);
            known.push_back(drafted.back());
        }
    }

private:
    const std::unique_ptr<Engine> engine;
    const int32_t n_vocab;
    const size_t n_batch;
    std::vector<Token> known;  // what its context holds
};

}  // namespace

std::unique_ptr<Drafter> make_drafter(Request & request, const ModelFacts & model, Events & events) {
    if (!request.speculation) {
        return nullptr;
    }
    Speculation & speculation = *request.speculation;
    if (speculation.engine == nullptr) {
        return std::make_unique<Lookup>(speculation.ngram);
    }
    enter_step(ExitCode::model);
    speculation.engine->check(speculation.model);
    const ModelFacts draft = speculation.engine->load(speculation.model);
    if (draft.n_vocab != model.n_vocab) {
        throw Failure(ExitCode::model, "the draft model knows " + std::to_string(draft.n_vocab) + " tokens, the model " +
                                           std::to_string(model.n_vocab) + ": one cannot foresee the other");
    }
    enter_step(ExitCode::context);
    const ContextFacts context = speculation.engine->open({request.setup.context, request.setup.threads, request.setup.batch, false, 1});
    events.add("draft", {{"model_bytes", draft.bytes}, {"n_params", draft.n_params}, {"kv_bytes", context.kv_bytes}});
    return std::make_unique<Companion>(std::move(speculation.engine), draft.n_vocab, static_cast<size_t>(context.n_batch));
}

}  // namespace melt
