// The toy engine. Its model is a text; it has counted which byte follows which, and goes on as that text would.

#include "engine.h"

#include "failure.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

namespace {

using namespace melt;

constexpr int32_t n_vocab = 256;  // every byte is a token
constexpr Token end_of_line = '\n';

Token token_of(char byte) { return static_cast<unsigned char>(byte); }

class Toy : public Engine {
public:
    Identity identity() const override { return {"toy", TOY_COMMIT, TOY_ISA, "counts bytes"}; }

    void read_options(Fields & fields) override { smoothing = fields.integer_or("smoothing", 1, 1000, 1); }

    ModelFacts load(const std::string & model) override {
        std::ifstream file(model, std::ios::binary);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        if (text.size() < 2) {
            throw Failure(ExitCode::model, "model " + model + " cannot be read, or is no text");
        }
        counts.assign(n_vocab * n_vocab, static_cast<float>(smoothing));
        for (size_t i = 1; i < text.size(); ++i) {
            counts[static_cast<size_t>(token_of(text[i - 1]) * n_vocab + token_of(text[i]))] += 1;
        }
        return {text.size(), counts.size(), n_vocab, 1};
    }

    ContextFacts open(const Setup & setup) override { return {setup.context, std::min(setup.batch, setup.context), {}}; }

    Json::Object effective() const override { return {{"smoothing", smoothing}}; }

    std::vector<Token> tokenize(const std::string & text, bool) const override {
        std::vector<Token> tokens(text.size());
        std::transform(text.begin(), text.end(), tokens.begin(), token_of);
        return tokens;
    }

    std::string piece(Token token) const override { return std::string(1, static_cast<char>(token)); }
    std::vector<Token> end_of_generation() const override { return {end_of_line}; }

    void decode(const Token * tokens, size_t count) override { last = tokens[count - 1]; }

    const float * logits() override {
        const auto row = counts.begin() + last * n_vocab;
        std::transform(row, row + n_vocab, next.begin(), [](float count) { return std::log(count); });
        return next.data();
    }

    void clear() override { last = 0; }

private:
    int64_t smoothing = 1;
    std::vector<float> counts;  // of each byte after each
    std::vector<float> next = std::vector<float>(n_vocab);
    Token last = 0;
};

}  // namespace

std::unique_ptr<melt::Engine> melt::make_engine() { return std::make_unique<Toy>(); }
