#include "folder.h"

#include "json.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace melt {
namespace {

constexpr int64_t most_bytes = int64_t{1} << 42;

[[noreturn]] void damaged(const std::string & path, const std::string & why) {
    throw Failure(ExitCode::model, path + " is damaged: " + why);
}

Json read(const std::string & path) {
    std::stringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    return Json::parse(content.str());
}

int64_t whole(const Json & object, const char * name, int64_t least, int64_t most) {
    const auto found = object.at(name).get<int64_t>();
    if (found < least || found > most) {
        throw JsonError(std::string(name) + " is " + std::to_string(found));
    }
    return found;
}

// Bytes of a tensor by its shape, and by what a number of it takes.
int64_t bytes_of(const Json & record) {
    const std::string & type = record.at("dtype").get<std::string>();
    int64_t bytes = type == "float16" ? 2 : 4;
    if (type != "float16" && type != "float32" && type != "uint32") {
        throw JsonError("a weight is of type " + type);
    }
    for (const Json & size : record.at("shape").get<Json::Array>()) {
        const auto count = size.get<int64_t>();
        if (count < 1 || count > most_bytes / bytes) {
            throw JsonError("a weight has the size " + std::to_string(count));
        }
        bytes *= count;
    }
    return bytes;
}

// Code that is cut off would be mapped and then read: the table of its sections is the last that it has.
void check_code(const std::string & path, uint64_t size) {
    char head[64] = {};
    std::ifstream(path, std::ios::binary).read(head, sizeof head);
    uint64_t table;
    uint16_t entry, entries;
    std::memcpy(&table, head + 40, sizeof table);
    std::memcpy(&entry, head + 58, sizeof entry);
    std::memcpy(&entries, head + 60, sizeof entries);
    if (std::memcmp(head, "\177ELF\2\1", 6) != 0 || entries == 0 || table > size || uint64_t{entry} * entries > size - table) {
        damaged(path, "it is no whole library");
    }
}

}  // namespace

ModelFolder::ModelFolder(const std::string & path) {
    const auto add = [&](const std::string & name) {
        std::error_code error;
        const uint64_t size = std::filesystem::file_size(std::filesystem::path(path) / name, error);
        if (error) {
            throw Failure(ExitCode::model, "model " + path + " has no readable " + name + ": " + error.message());
        }
        bytes += size;
        return size;
    };
    for (const char * name : {"model.json", "tensor-cache.json", "vocabulary.gguf"}) {
        add(name);
    }
    check_code(path + "/model.so", add("model.so"));
    std::string file = path + "/model.json";
    try {
        const Json document = read(file);
        constexpr int64_t many = 1 << 20, most = std::numeric_limits<int32_t>::max();
        shape = {whole(document, "layers", 1, many),           whole(document, "kv_heads", 1, many),
                 whole(document, "head", 1, many),             whole(document, "vocabulary", 1, many << 6),
                 whole(document, "context", 1, most),          whole(document, "parameters", 1, int64_t{1} << 60)};
        file = path + "/tensor-cache.json";
        const Json index = read(file);
        for (const Json & shard : index.at("records").get<Json::Array>()) {
            const std::string & name = shard.at("dataPath").get<std::string>();
            const int64_t size = whole(shard, "nbytes", 0, most_bytes);
            if (name.find('/') != std::string::npos || add(name) != static_cast<uint64_t>(size)) {
                damaged(path + "/" + name, "expected " + std::to_string(size) + " bytes");
            }
            for (const Json & record : shard.at("records").get<Json::Array>()) {
                const int64_t length = whole(record, "nbytes", 0, size);
                whole(record, "byteOffset", 0, size - length);
                if (length != bytes_of(record)) {
                    throw JsonError("a weight has another size than its shape");
                }
                weights.push_back(record.at("name").get<std::string>());
            }
        }
    } catch (const JsonError & error) {
        damaged(file, error.what());
    }
}

}  // namespace melt
