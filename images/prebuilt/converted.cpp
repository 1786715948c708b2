#include "converted.h"

#include "failure.h"
#include "json.h"

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

Converted::Converted(const std::string & path, std::initializer_list<const char *> files) : vocabulary_file(path + "/" + tokens) {
    std::vector<const char *> all(files);
    all.insert(all.end(), {tokens, facts});
    for (const char * name : all) {
        std::error_code error;
        bytes += std::filesystem::file_size(std::filesystem::path(path) / name, error);
        if (error) {
            throw Failure(ExitCode::model, "model " + path + " has no readable " + name + ": " + error.message());
        }
    }
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

std::string module_of(const std::string & node) {
    const size_t end = node.find_first_not_of("0123456789", layer.size());
    const bool numbered = node.compare(0, layer.size(), layer) == 0 && end != std::string::npos && node[end] == '.';
    return numbered ? node.substr(end + 1) : node;
}

}  // namespace melt
