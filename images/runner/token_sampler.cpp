#include "token_sampler.h"

#include "failure.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

namespace melt {
namespace {

constexpr uint64_t multiplier = 6364136223846793005U;
constexpr uint64_t increment = 2 * 54 + 1;

std::vector<Token> sorted(std::vector<Token> tokens) {
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

[[noreturn]] void not_numbers() { throw Failure(ExitCode::decode, "the model's logits are not numbers"); }

}  // namespace

Pcg32::Pcg32(uint64_t seed) : state(0) {
    next();
    state += seed;
    next();
}

uint32_t Pcg32::next() {
    const uint64_t old = state;
    state = old * multiplier + increment;
    const auto shifted = static_cast<uint32_t>(((old >> 18U) ^ old) >> 27U);
    const auto rotation = static_cast<uint32_t>(old >> 59U);
    return (shifted >> rotation) | (shifted << (-rotation & 31U));
}

TokenSampler::TokenSampler(const Sampling & sampling, std::vector<Token> banned)
    : sampling(sampling), banned(sorted(std::move(banned))), random(sampling.seed) {}

Token TokenSampler::sample(const float * logits, int32_t n_vocab, const std::vector<Token> & history) {
    if (sampling.greedy) {
        return greedy(logits, n_vocab);
    }
    candidates.resize(static_cast<size_t>(n_vocab));
    for (Token id = 0; id < n_vocab; ++id) {
        if (std::isnan(logits[id])) {
            not_numbers();
        }
        candidates[static_cast<size_t>(id)] = {id, logits[id]};
    }
    penalize(history);
    candidates.erase(
        std::remove_if(candidates.begin(), candidates.end(), [this](const Candidate & c) { return is_banned(c.id); }),
        candidates.end());
    keep_largest(sampling.top_k == 0 ? candidates.size() : static_cast<size_t>(sampling.top_k));
    return draw();
}

bool TokenSampler::is_banned(Token id) const { return std::binary_search(banned.begin(), banned.end(), id); }

Token TokenSampler::greedy(const float * logits, int32_t n_vocab) {
    Token best = -1;
    float largest = -std::numeric_limits<float>::infinity(), next = largest;
    for (Token id = 0; id < n_vocab; ++id) {
        if (logits[id] > next && !is_banned(id)) {
            if (logits[id] > largest) {
                next = largest;
                largest = logits[id];
                best = id;
            } else {
                next = logits[id];
            }
        }
    }
    if (best < 0) {
        not_numbers();
    }
    if (const float gap = largest - next; std::isfinite(gap)) {
        last_margin = gap;
    } else {
        last_margin.reset();
    }
    return best;
}

void TokenSampler::penalize(const std::vector<Token> & history) {
    if (sampling.repeat_penalty == 1.0) {
        return;
    }
    const size_t window = std::min(history.size(), static_cast<size_t>(sampling.repeat_last_n));
    const std::unordered_set<Token> recent(history.end() - static_cast<std::ptrdiff_t>(window), history.end());
    for (const Token id : recent) {
        double & logit = candidates[static_cast<size_t>(id)].value;
        logit = logit > 0 ? logit / sampling.repeat_penalty : logit * sampling.repeat_penalty;
    }
}

void TokenSampler::keep_largest(size_t count) {
    const auto before = [](const Candidate & a, const Candidate & b) {
        return a.value != b.value ? a.value > b.value : a.id < b.id;
    };
    count = std::min(count, candidates.size());
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count), candidates.end(), before);
    candidates.resize(count);
}

// Temperature, softmax, top-p and the draw, over candidates that are sorted.
Token TokenSampler::draw() {
    if (candidates.empty() || !std::isfinite(candidates.front().value)) {
        not_numbers();
    }
    const double largest = candidates.front().value;
    double total = 0;
    for (Candidate & candidate : candidates) {
        candidate.value = std::exp((candidate.value - largest) / sampling.temperature);
        total += candidate.value;
    }
    double kept = 0;
    size_t count = 0;
    while (count < candidates.size() && (count == 0 || kept < sampling.top_p * total)) {
        kept += candidates[count++].value;
    }
    double rest = random.uniform() * kept;
    for (size_t i = 0; i < count; ++i) {
        rest -= candidates[i].value;
        if (rest < 0) {
            return candidates[i].id;
        }
    }
    return candidates[count - 1].id;
}

}  // namespace melt
