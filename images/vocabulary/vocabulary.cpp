#include "vocabulary.h"

#include "failure.h"
#include "llama-model-loader.h"
#include "llama-vocab.h"

#include <algorithm>
#include <cstdio>

// The loader asks for the other files of a model that has several; a vocabulary is one file, and all else of llama.cpp stays out.
int llama_split_path(char *, size_t, const char *, int, int) { return 0; }
int llama_split_prefix(char *, size_t, const char *, int, int) { return 0; }

namespace melt {
namespace {

// A line for each oddity of a vocabulary, and none about what it is.
void say(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

}  // namespace

Vocabulary::Vocabulary(const std::string & path) : vocabulary(std::make_unique<llama_vocab>()) {
    llama_log_set(say, nullptr);
    try {
        std::vector<std::string> no_splits;
        llama_model_loader loader(nullptr, nullptr, nullptr, path, no_splits, nullptr, LLAMA_LOAD_MODE_NONE, false, true, false,
                                  nullptr, nullptr);
        vocabulary->load(loader, LLM_KV(loader.get_arch()));
    } catch (const std::exception & error) {
        throw Failure(ExitCode::model, path + " has no vocabulary that can be read: " + error.what());
    }
}

Vocabulary::~Vocabulary() = default;

int32_t Vocabulary::size() const { return static_cast<int32_t>(vocabulary->n_tokens()); }

std::vector<Token> Vocabulary::tokenize(const std::string & text, bool first) const {
    return vocabulary->tokenize(text, first && vocabulary->get_add_bos(), true);
}

std::string Vocabulary::piece(Token token) const {
    std::string text(64, '\0');
    const auto write = [&] {
        return vocabulary->token_to_piece(token, text.data(), static_cast<int32_t>(text.size()), 0, false);
    };
    int32_t length = write();
    if (length < 0) {
        text.resize(static_cast<size_t>(-length));
        length = write();
    }
    text.resize(static_cast<size_t>(std::max(length, 0)));
    return text;
}

std::vector<Token> Vocabulary::end_of_generation() const {
    std::vector<Token> ends;
    for (Token token = 0; token < size(); ++token) {
        if (vocabulary->is_eog(token)) {
            ends.push_back(token);
        }
    }
    return ends;
}

}  // namespace melt
