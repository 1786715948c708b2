#include "expectations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace melt {
namespace {

constexpr char magic[] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};
constexpr uint64_t head = sizeof magic + 3 * sizeof(int32_t);
constexpr size_t floats = 2 * sizeof(float) / sizeof(uint16_t);  // entries of a row before those of the vocabulary
constexpr float least = -16;
constexpr int32_t many = 1 << 26;

template <typename T>
void take(std::ifstream & file, T * values, size_t count) {
    if (!file.read(reinterpret_cast<char *>(values), static_cast<std::streamsize>(count * sizeof(T)))) {
        throw Unscorable("what the unquantized model expects cannot be read to its end");
    }
}

}  // namespace

Expectations::Expectations(const std::string & path) : file(path, std::ios::binary) {
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(path, error);
    char begins[sizeof magic];
    if (error || size < head || !file.read(begins, sizeof begins) || !std::equal(begins, begins + sizeof begins, magic)) {
        throw Unscorable("what the unquantized model expects is no such file: " +
                           (error ? error.message() : "it has " + std::to_string(size) + " bytes"));
    }
    take(file, &window, 1);
    take(file, &vocabulary, 1);
    take(file, &windows, 1);
    if (window < 2 || window > many || vocabulary < 1 || vocabulary > many || windows < 1) {
        throw Unscorable("what the unquantized model expects says that it has " + std::to_string(windows) + " windows of " +
                           std::to_string(window) + " tokens out of " + std::to_string(vocabulary));
    }
    row.resize(floats + static_cast<size_t>(vocabulary + vocabulary % 2));
    const uint64_t each = sizeof(Token) * static_cast<uint64_t>(window) +
                          sizeof(uint16_t) * row.size() * static_cast<uint64_t>(window - 1 - window / 2);
    if (each > (size - head) / static_cast<uint64_t>(windows) || size != head + each * static_cast<uint64_t>(windows)) {
        throw Unscorable("what the unquantized model expects is not whole: it has " + std::to_string(size) + " bytes, of " +
                           std::to_string(windows) + " windows with " + std::to_string(each) + " each");
    }
    tokens.resize(static_cast<size_t>(window) * static_cast<size_t>(windows));
    take(file, tokens.data(), tokens.size());
}

void Expectations::require(const std::vector<Token> & text, size_t context, size_t size) const {
    if (static_cast<size_t>(vocabulary) != size) {
        throw Unscorable("the unquantized model has another vocabulary: " + std::to_string(vocabulary) + " tokens, and this one " +
                           std::to_string(size));
    }
    if (static_cast<size_t>(window) != context) {
        throw Unscorable("what the unquantized model expects is of windows of " + std::to_string(window) + " tokens, and " +
                           std::to_string(context) + " are asked for");
    }
    const auto differs = std::mismatch(tokens.begin(), tokens.end(), text.begin(), text.end());
    if (differs.first != tokens.end()) {
        const auto place = differs.first - tokens.begin();
        throw Unscorable("the unquantized model has other tokens for the text: number " + std::to_string(place + 1) + " is " +
                           std::to_string(*differs.first) + ", and here " +
                           (differs.second == text.end() ? "the text has ended" : std::to_string(*differs.second)));
    }
}

Compared Expectations::compare(const float * logits, double log_total) {
    take(file, row.data(), row.size());
    float step, lowest;
    std::memcpy(&step, row.data(), sizeof step);
    std::memcpy(&lowest, row.data() + floats / 2, sizeof lowest);
    const uint16_t * entries = row.data() + floats;
    const auto count = static_cast<size_t>(vocabulary);
    double divergence = 0;
    for (size_t i = 0; i < count; ++i) {
        const float expected = step * static_cast<float>(entries[i]) + lowest;
        if (expected > least) {
            divergence += std::exp(static_cast<double>(expected)) * (expected - (static_cast<double>(logits[i]) - log_total));
        }
    }
    const auto top = std::max_element(logits, logits + count) - logits;
    return {divergence, top == std::max_element(entries, entries + count) - entries};
}

}  // namespace melt
