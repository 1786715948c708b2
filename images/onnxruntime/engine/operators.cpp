#include "operators.h"

#include "clock.h"
#include "converted.h"
#include "failure.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace melt {
namespace {

namespace fs = std::filesystem;
constexpr int64_t ns_per_us = 1000;
const std::string suffix = "_kernel_time";

// What a run from `begin` to `end` left: each operator, and what lies between them: the time of executor and profiler.
void read(const fs::path & path, int64_t begin, int64_t end, std::vector<Operation> & found) {
    std::stringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    const Json document = Json::parse(content.str());
    int64_t earliest = std::numeric_limits<int64_t>::max(), place = begin;
    for (const Json & event : document.get<Json::Array>()) {
        if (const Json * time = event.find("ts"); time != nullptr) {
            earliest = std::min(earliest, time->get<int64_t>());
        }
    }
    for (const Json & event : document.get<Json::Array>()) {
        const std::string & name = event.at("name").get<std::string>();
        if (name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0) {
            const int64_t from = begin + (event.at("ts").get<int64_t>() - earliest) * ns_per_us;
            // Its name, without how it was fused.
            const std::string node = name.substr(0, std::min(name.find('/'), name.size() - suffix.size()));
            const int64_t took = event.at("dur").get<int64_t>() * ns_per_us;
            found.push_back({"between operators", "", place, std::max<int64_t>(from - place, 0)});
            found.push_back({event.at("args").at("op_name").get<std::string>(), module_of(node), from, took});
            place = from + took;
        }
    }
    found.push_back({"profiler", "", place, std::max<int64_t>(end - place, 0)});
}

}  // namespace

Operators::~Operators() {
    if (options != nullptr) {
        ort.release_run_options(options);
    }
    std::error_code ignored;
    fs::remove_all(folder, ignored);
}

void Operators::start() {
    const char * job = std::getenv("MELTREPRO_JOB");
    for (const std::string place : {job != nullptr ? job : "/tmp", "/dev/shm", "."}) {  // a container has no /tmp
        folder = place + "/operators-XXXXXX";
        if (mkdtemp(folder.data()) != nullptr) {
            return ort.check(ort.create_run_options(&options), ExitCode::context);
        }
    }
    throw Failure(ExitCode::context, "no folder can be made for what operators leave");
}

const OrtRunOptions * Operators::next() {
    if (options != nullptr) {
        const std::string own = folder + "/" + std::to_string(begins.size());
        fs::create_directory(own);
        ort.check(ort.enable_run_profiling(options, (own + "/run").c_str()), ExitCode::decode);
        begins.push_back(monotonic_ns());
    }
    return options;
}

std::vector<Operation> Operators::take() {
    const int64_t now = monotonic_ns();
    std::vector<Operation> found;
    for (size_t i = 0; i < begins.size(); ++i) {
        const fs::path own = fs::path(folder) / std::to_string(i);
        for (const auto & entry : fs::directory_iterator(own)) {
            read(entry.path(), begins[i], i + 1 < begins.size() ? begins[i + 1] : now, found);
        }
        fs::remove_all(own);
    }
    begins.clear();
    return found;
}

}  // namespace melt
