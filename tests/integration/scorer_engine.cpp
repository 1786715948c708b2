// An engine without a model, for melt-scorer: a token for each byte, every token equally probable, trained for 64 tokens.

#include "engine.h"

namespace melt {
namespace {

constexpr int32_t n_vocab = 256;

class Even : public Engine {
public:
    Identity identity() const override { return {"even", "", "", ""}; }
    ModelFacts load(const std::string &) override { return {1, 1, n_vocab, 64}; }
    ContextFacts open(const Setup & setup) override { return {setup.context, setup.batch, std::nullopt}; }
    std::vector<Token> tokenize(const std::string & text, bool) const override {
        std::vector<Token> tokens;
        for (const char byte : text) {
            tokens.push_back(static_cast<unsigned char>(byte));
        }
        return tokens;
    }
    std::string piece(Token token) const override { return std::string(1, static_cast<char>(token)); }
    std::vector<Token> end_of_generation() const override { return {}; }
    void decode(const Token *, size_t) override {}
    const float * logits() override { return even.data(); }
    void clear() override {}

private:
    std::vector<float> even = std::vector<float>(n_vocab);
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<Even>(); }

}  // namespace melt
