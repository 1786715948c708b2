// melt-sampler plan.json samples.jsonl: reads small files of the kernel at a fixed rate until SIGTERM or SIGINT; see
// docs/sampling.md. It decides nothing: which files, how often and what the numbers mean stands in the plan.

#include "clock.h"
#include "json.h"

#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <exception>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>
#include <vector>

namespace melt {
namespace {

constexpr int bad_plan = 2;
constexpr int cannot_write = 6;
constexpr int64_t search_every_ns = 500'000'000;
const std::string process_mark = "{pid}";

std::atomic<int> stop_signal{0};

void on_signal(int signal) { stop_signal = signal; }

struct WriteError {};

// One quantity: a number in a file.
struct Channel {
    std::string path;
    std::string after;   // the number comes after this text; empty: at the beginning
    int64_t index;       // how many numbers to skip
    double scale;
    int64_t every;       // read in each so many sweeps
    bool of_process;     // the path holds `{pid}`: of the watched process, which may come and go
    bool faulty = false; // said once, until it can be read again
};

class Output {
public:
    explicit Output(const char * path) : file(open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644)) {
        if (file < 0) {
            std::fprintf(stderr, "melt-sampler: %s: %s\n", path, std::strerror(errno));
            throw WriteError{};
        }
    }
    ~Output() { close(file); }
    Output(const Output &) = delete;
    Output & operator=(const Output &) = delete;

    void line(const Json & value) { lines += value.dump() + "\n"; }

    void sample(int64_t t, size_t channel, double value) {
        char text[96];
        std::snprintf(text, sizeof(text), "[%lld,%zu,%.17g]\n", static_cast<long long>(t), channel, value);
        lines += text;
    }

    // In one write, so that a killed sampler leaves whole lines but for the last.
    void flush() {
        for (size_t done = 0; done < lines.size();) {
            const ssize_t count = write(file, lines.data() + done, lines.size() - done);
            if (count < 0 && errno != EINTR) {
                std::fprintf(stderr, "melt-sampler: cannot write: %s\n", std::strerror(errno));
                throw WriteError{};
            }
            done += count > 0 ? static_cast<size_t>(count) : 0;
        }
        lines.clear();
    }

private:
    int file;
    std::string lines;
};

// The beginning of a file, as much as may matter; errno says why where there is none.
bool read_file(const std::string & path, std::string & content) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    content.resize(1 << 16);
    size_t size = 0;
    ssize_t count = 0;
    while (size < content.size() && (count = read(file, &content[size], content.size() - size)) > 0) {
        size += static_cast<size_t>(count);
    }
    const int error = errno;
    close(file);
    errno = error;
    content.resize(size);
    return count >= 0;
}

bool find_number(const std::string & content, const Channel & channel, double & value) {
    const size_t found = channel.after.empty() ? 0 : content.find(channel.after);
    if (found == std::string::npos) {
        return false;
    }
    const char * at = content.c_str() + found + channel.after.size();
    for (int64_t i = 0; i <= channel.index; ++i) {
        char * end = nullptr;
        value = std::strtod(at, &end);
        if (end == at || !std::isfinite(value)) {
            return false;
        }
        at = end;
    }
    value *= channel.scale;
    return std::isfinite(value);
}

// The process that is watched, by its command name; looked for again when it has ended. One that has ended keeps its
// name until its parent asks for its status, but has no memory any more: `statm` begins with a zero.
class Watched {
public:
    Watched(std::string root, std::string name) : proc(std::move(root) + "/proc"), name(std::move(name)) {}

    // Empty while there is none. Looking through all processes is dear, so that it is not done more often than needed.
    std::string pid() {
        if (!current.empty() && !lives(current)) {
            current.clear();
        }
        if (current.empty() && monotonic_ns() >= search_at) {
            current = find();
            search_at = monotonic_ns() + search_every_ns;
        }
        return current;
    }

    bool lives(const std::string & candidate) const {
        std::string content;
        return read_file(proc + "/" + candidate + "/comm", content) && content == name + "\n" &&
               read_file(proc + "/" + candidate + "/statm", content) && !content.empty() && content.compare(0, 2, "0 ") != 0;
    }

private:
    std::string find() const {
        DIR * folder = opendir(proc.c_str());
        std::string found;
        for (const dirent * entry = nullptr; folder != nullptr && found.empty() && (entry = readdir(folder)) != nullptr;) {
            if (std::strspn(entry->d_name, "0123456789") == std::strlen(entry->d_name) && lives(entry->d_name)) {
                found = entry->d_name;
            }
        }
        if (folder != nullptr) {
            closedir(folder);
        }
        return found;
    }

    std::string proc;
    std::string name;
    std::string current;
    int64_t search_at = 0;
};

class SensorSampler {
public:
    SensorSampler(const Json & plan, Output & output)
        : out(output), period_ns(static_cast<int64_t>(1e9 / plan.at("rate_hz").number())),
          watched(plan.at("root").get<std::string>(), plan.at("process").get<std::string>()) {
        const auto & root = plan.at("root").get<std::string>();
        for (const Json & entry : plan.at("channels").get<Json::Array>()) {
            const auto & path = entry.at("path").get<std::string>();
            channels.push_back({root + "/" + path, entry.at("after").get<std::string>(), entry.at("index").get<int64_t>(),
                                entry.at("scale").number(), entry.at("every").get<int64_t>(),
                                path.find(process_mark) != std::string::npos});
        }
    }

    void run() {
        int64_t due = monotonic_ns();
        for (int64_t sweep = 0; stop_signal == 0; ++sweep) {
            const std::string pid = watched.pid();
            for (size_t i = 0; i < channels.size(); ++i) {
                if (sweep % channels[i].every == 0) {
                    read(i, pid);
                }
            }
            out.flush();
            due += period_ns;
            const int64_t late = monotonic_ns() - due;
            if (late > 0) {  // what was missed stays a gap: nothing is read in a hurry to catch up
                due += (late / period_ns + 1) * period_ns;
            }
            wait_until(due);
        }
    }

private:
    void read(size_t i, const std::string & pid) {
        Channel & channel = channels[i];
        std::string path = channel.path;
        if (channel.of_process) {
            if (pid.empty()) {
                return;
            }
            path.replace(path.find(process_mark), process_mark.size(), pid);
        }
        std::string content;
        const int64_t t = monotonic_ns();
        double value = 0;
        if (!read_file(path, content)) {
            const int error = errno;
            if (!channel.of_process) {  // a process may end at any time
                fault(i, t, error == EACCES || error == EPERM ? "denied" : "vanished", std::strerror(error));
            }
        } else if (!find_number(content, channel, value)) {
            if (!channel.of_process || watched.lives(pid)) {
                fault(i, t, "not_a_number", content.substr(0, 60));
            }
        } else {
            channel.faulty = false;
            out.sample(t, i, value);
        }
    }

    void fault(size_t i, int64_t t, const char * kind, const std::string & detail) {
        if (!channels[i].faulty) {
            channels[i].faulty = true;
            out.line(Json::Object{{"fault", kind}, {"channel", i}, {"t", t}, {"detail", detail}});
        }
    }

    static void wait_until(int64_t t) {
        const timespec due{static_cast<time_t>(t / 1'000'000'000), static_cast<long>(t % 1'000'000'000)};
        while (stop_signal == 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, nullptr) == EINTR) {
        }
    }

    Output & out;
    int64_t period_ns;
    Watched watched;
    std::vector<Channel> channels;
};

void listen() {
    struct sigaction action {};
    action.sa_handler = on_signal;  // without SA_RESTART: a sleep ends
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

int run(const char * plan_path, const char * output_path) {
    std::ifstream file(plan_path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    const Json plan = Json::parse(content.str());
    Output output(output_path);
    output.line(plan.at("header"));
    output.flush();
    SensorSampler(plan, output).run();
    output.line(Json::Object{{"end", monotonic_ns()}, {"cpu_s", static_cast<double>(clock_ns(CLOCK_PROCESS_CPUTIME_ID)) / 1e9}});
    output.flush();
    return 0;
}

}  // namespace
}  // namespace melt

int main(int argc, char ** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: melt-sampler plan.json samples.jsonl\n");
        return melt::bad_plan;
    }
    melt::listen();
    try {
        return melt::run(argv[1], argv[2]);
    } catch (const melt::WriteError &) {
        return melt::cannot_write;
    } catch (const std::exception & error) {
        std::fprintf(stderr, "melt-sampler: %s: %s\n", argv[1], error.what());
        return melt::bad_plan;
    }
}
