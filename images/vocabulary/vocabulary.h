// A model's tokens by llama.cpp's own code: the same texts become the same tokens in both frameworks.
#pragma once

#include "engine.h"

#include <memory>
#include <string>
#include <vector>

struct llama_vocab;

namespace melt {

class Vocabulary {
public:
    // Of a GGUF file's metadata: Failure(model).
    explicit Vocabulary(const std::string & path);
    ~Vocabulary();

    int32_t size() const;
    std::vector<Token> tokenize(const std::string & text, bool first) const;
    std::string piece(Token token) const;
    std::vector<Token> end_of_generation() const;

private:
    const std::unique_ptr<llama_vocab> vocabulary;
};

}  // namespace melt
