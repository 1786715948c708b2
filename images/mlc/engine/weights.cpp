#include "weights.h"

#include "failure.h"
#include "json.h"

#include <cstring>
#include <fstream>
#include <sstream>

namespace melt {
namespace {

[[noreturn]] void damaged(const std::string & path, const std::string & why) {
    throw Failure(ExitCode::model, path + " is damaged: " + why);
}

int64_t whole(const Json & object, const char * name, int64_t most) {
    const auto found = object.at(name).get<int64_t>();
    if (found < 0 || found > most) {
        throw JsonError(std::string(name) + " is " + std::to_string(found));
    }
    return found;
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

std::vector<std::string> weights_of(Converted & folder) {
    check_code(folder.path + "/model.so", folder.add("model.so"));
    const std::string file = folder.path + "/tensor-cache.json";
    folder.add("tensor-cache.json");
    std::stringstream content;
    content << std::ifstream(file, std::ios::binary).rdbuf();
    std::vector<std::string> names;
    try {
        const Json index = Json::parse(content.str());
        for (const Json & shard : index.at("records").get<Json::Array>()) {
            const std::string & name = shard.at("dataPath").get<std::string>();
            const int64_t size = whole(shard, "nbytes", int64_t{1} << 42);
            if (name.find('/') != std::string::npos || folder.add(name) != static_cast<uint64_t>(size)) {
                damaged(folder.path + "/" + name, "expected " + std::to_string(size) + " bytes");
            }
            for (const Json & record : shard.at("records").get<Json::Array>()) {
                whole(record, "byteOffset", size - whole(record, "nbytes", size));
                names.push_back(record.at("name").get<std::string>());
            }
        }
    } catch (const JsonError & error) {
        damaged(file, error.what());
    }
    return names;
}

}  // namespace melt
