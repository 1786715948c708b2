// Chooses tokens, as docs/runner.md defines it, so that two versions of a framework differ by their logits alone.
#pragma once

#include "request.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace melt {

// PCG32 (pcg_xsh_rr_64_32) on stream 54, the one whose first outputs its authors publish.
class Pcg32 {
public:
    explicit Pcg32(uint64_t seed);
    uint32_t next();
    // In [0, 1).
    double uniform() { return next() * 0x1p-32; }

private:
    uint64_t state;
};

class TokenSampler {
public:
    // `banned` tokens are never chosen.
    TokenSampler(const Sampling & sampling, std::vector<Token> banned);

    void seed(uint64_t seed) { random = Pcg32(seed); }

    // The next token after `history`; throws Failure(decode) where logits are not numbers.
    Token sample(const float * logits, int32_t n_vocab, const std::vector<Token> & history);
    // By how much the logit of the last token exceeds the next one's, where it was taken greedily.
    std::optional<float> margin() const { return last_margin; }

private:
    struct Candidate {
        Token id;
        double value;  // the logit, later its weight
    };

    bool is_banned(Token id) const;
    Token greedy(const float * logits, int32_t n_vocab);
    void penalize(const std::vector<Token> & history);
    void keep_largest(size_t count);
    Token draw();

    const Sampling sampling;
    const std::vector<Token> banned;  // sorted
    Pcg32 random;
    std::vector<Candidate> candidates;
    std::optional<float> last_margin;
};

}  // namespace melt
