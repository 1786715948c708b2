// Samples with the runner's own sampler. Reads numbers from stdin, as tests/integration/test_sampler.py writes them:
// greedy temperature top_k top_p repeat_penalty repeat_last_n seed; counts of banned, history and logits, then each.
// Writes that many draws as it is asked for, each added to the history.
#include "token_sampler.h"

#include <iostream>

template <typename T>
static std::vector<T> read_list() {
    size_t count = 0;
    std::cin >> count;
    std::vector<T> values(count);
    for (T & value : values) {
        std::cin >> value;
    }
    return values;
}

int main() {
    melt::Sampling sampling{};
    std::cin >> sampling.greedy >> sampling.temperature >> sampling.top_k >> sampling.top_p >> sampling.repeat_penalty >>
        sampling.repeat_last_n >> sampling.seed;
    const auto banned = read_list<melt::Token>();
    auto history = read_list<melt::Token>();
    const auto logits = read_list<float>();
    size_t draws = 0;
    std::cin >> draws;
    melt::TokenSampler sampler(sampling, banned);
    while (draws-- > 0) {
        history.push_back(sampler.sample(logits.data(), static_cast<int32_t>(logits.size()), history));
        std::cout << history.back() << '\n';
    }
}
