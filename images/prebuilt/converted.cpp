#include "converted.h"

#include "failure.h"
#include "json.h"
#include "signals.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace melt {
namespace {

constexpr const char * tokens = "vocabulary.gguf";
constexpr const char * facts = "model.json";
const std::string layer = "blk.";

}  // namespace

Converted::Converted(const std::string & path, std::initializer_list<const char *> files)
    : path(path), vocabulary_file(path + "/" + tokens) {
    for (const char * name : files) {
        add(name);
    }
    add(tokens);
    add(facts);
    std::stringstream content;
    content << std::ifstream(path + "/" + facts, std::ios::binary).rdbuf();
    try {
        const Json document = Json::parse(content.str());
        const auto number = [&](const char * name, int64_t most) {
            const auto found = document.at(name).get<int64_t>();
            if (found < 1 || found > most) {
                throw JsonError(std::string(name) + " is " + std::to_string(found));
            }
            return found;
        };
        constexpr int64_t many = 1 << 20;
        layers = number("layers", many);
        kv_heads = number("kv_heads", many);
        head = number("head", many);
        vocabulary = number("vocabulary", many << 6);
        context = number("context", std::numeric_limits<int32_t>::max());
        parameters = number("parameters", int64_t{1} << 60);
    } catch (const JsonError & error) {
        throw Failure(ExitCode::model, path + "/" + facts + " is damaged: " + error.what());
    }
}

uint64_t Converted::add(const std::string & name) {
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(std::filesystem::path(path) / name, error);
    if (error) {
        throw Failure(ExitCode::model, "model " + path + " has no readable " + name + ": " + error.message());
    }
    bytes += size;
    return size;
}

std::string module_of(const std::string & node) {
    const size_t end = node.find_first_not_of("0123456789", layer.size());
    const bool numbered = node.compare(0, layer.size(), layer) == 0 && end != std::string::npos && node[end] == '.';
    return numbered ? node.substr(end + 1) : node;
}

ModelFacts ConvertedEngine::load(const std::string & model) {
    vocabulary = std::make_unique<Vocabulary>(folder->vocabulary_file);
    if (vocabulary->size() != folder->vocabulary) {
        throw Failure(ExitCode::model, "the model has logits for " + std::to_string(folder->vocabulary) + " tokens, and its vocabulary " +
                                           std::to_string(vocabulary->size()));
    }
    throw_if_stopped();
    load_code(model);
    throw_if_stopped();
    return {folder->bytes, static_cast<uint64_t>(folder->parameters), vocabulary->size(), static_cast<int32_t>(folder->context)};
}

ContextFacts ConvertedEngine::open(const Setup & setup) {
    if (setup.context > folder->context) {
        throw Failure(ExitCode::context, "a context of " + std::to_string(setup.context) + " tokens is longer than the " +
                                             std::to_string(folder->context) + " that the model was trained for");
    }
    n_ctx = setup.context;
    return {n_ctx, std::min(setup.batch, setup.context), open_cache(setup)};
}

void ConvertedEngine::decode(const Token * tokens, size_t count) {
    if (count > static_cast<size_t>(n_ctx - past)) {
        throw Failure(ExitCode::decode, "no room for " + std::to_string(count) + " tokens after " + std::to_string(past));
    }
    for (size_t i = 0; i < count; ++i) {
        if (tokens[i] < 0 || tokens[i] >= folder->vocabulary) {
            throw Failure(ExitCode::decode, "there is no token " + std::to_string(tokens[i]));
        }
    }
    compute(tokens, count);
    past += static_cast<int32_t>(count);
}

char * ConvertedEngine::reserve(uint64_t size) {
    keys_and_values.reset(std::calloc(1, size));
    if (keys_and_values == nullptr) {
        throw Failure(ExitCode::context,
                      "no memory for a context of " + std::to_string(n_ctx) + " tokens: " + std::to_string(size) + " bytes");
    }
    return static_cast<char *>(keys_and_values.get());
}

}  // namespace melt
