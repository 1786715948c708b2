#include "events.h"

#include "clock.h"
#include "failure.h"
#include "memory.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace melt {
namespace {

[[noreturn]] void cannot(const std::string & what) {
    throw Failure(ExitCode::events, "events: cannot " + what + ": " + std::strerror(errno));
}

}  // namespace

Events::Events(const std::string & path) : file(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
    if (file < 0) {
        cannot("open " + path);
    }
}

Events::~Events() { close(file); }

void Events::add(const char * kind, const Json::Object & fields) { add_at(monotonic_ns(), kind, fields); }

void Events::add_at(int64_t t, const char * kind, const Json::Object & fields) {
    Json::Object line{{"e", kind}, {"t", t}};
    line.insert(line.end(), fields.begin(), fields.end());
    lines += Json(std::move(line)).dump();
    lines += '\n';
}

void Events::add_memory(const char * phase) {
    const Memory memory = read_memory();
    add("mem", {{"phase", phase},
                {"rss_anon", memory.rss_anon},
                {"rss_file", memory.rss_file},
                {"hwm", memory.hwm},
                {"swap", memory.swap}});
}

void Events::add_token(int64_t t, int64_t index, int32_t id, std::optional<float> margin) {
    char line[128];
    int length = std::snprintf(line, sizeof line, "{\"e\":\"token\",\"t\":%lld,\"i\":%lld,\"id\":%d",
                               static_cast<long long>(t), static_cast<long long>(index), id);
    lines.append(line, static_cast<size_t>(length));
    if (margin) {
        length = std::snprintf(line, sizeof line, ",\"margin\":%.4g", static_cast<double>(*margin));
        lines.append(line, static_cast<size_t>(length));
    }
    lines += "}\n";
}

void Events::flush() {
    size_t done = 0;
    while (done < lines.size()) {
        const ssize_t written = write(file, lines.data() + done, lines.size() - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            // What cannot be written now must not be tried again by whoever reports this failure.
            lines.clear();
            cannot("write");
        }
        done += static_cast<size_t>(written);
    }
    lines.clear();
}

void Events::sync() {
    flush();
    // Pipes and character devices have nothing to sync and say EINVAL or EROFS.
    if (fsync(file) != 0 && errno != EINVAL && errno != EROFS) {
        cannot("sync");
    }
}

}  // namespace melt
