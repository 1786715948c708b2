// What an unquantized model expects of a text, as llama.cpp's `perplexity --kl-divergence-base` writes it.
//
// "_logits_", then tokens of a window, vocabulary and number of windows as int32; the text's tokens as int32; and for every token that is
// scored a row: a step and the least log-probability as floats, then a uint16 for each entry of the vocabulary, which are of an even
// number. An entry's log-probability is the least one and so many steps.
#pragma once

#include "engine.h"

#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace melt {

// Why there is no score: model, context and data do not fit each other. No fault of the engine.
class Unscorable : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct Compared {
    double divergence;  // in nats, of the engine's probabilities from the expected ones
    bool same_top;      // whether both have the same most probable token
};

class Expectations {
public:
    // Unscorable where the file is none, or not whole.
    explicit Expectations(const std::string & path);

    // Unscorable unless it is of the same tokens, windows and vocabulary.
    void require(const std::vector<Token> & text, size_t context, size_t vocabulary) const;

    // With the next row; `log_total` is what logits are more than log-probabilities. As llama.cpp does it, leaves out what is less
    // probable than exp(-16), which the file does not tell apart.
    Compared compare(const float * logits, double log_total);

    int32_t window = 0, vocabulary = 0, windows = 0;
    std::vector<Token> tokens;  // of all windows

private:
    std::ifstream file;
    std::vector<uint16_t> row;
};

}  // namespace melt
