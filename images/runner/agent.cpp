// melt-agent: what a host cannot do from afar, where any link may break at any moment; see docs/runner.md.
//
//   melt-agent supervise JOB SECONDS PROGRAM [ARGUMENT...]   start a program that outlives the link
//   melt-agent wait JOB                                      until it has ended; a dot every ten seconds meanwhile
//   melt-agent stop JOB                                      end it and whatever it started
//   melt-agent clock                                         for every byte read, a line with the clocks
//   melt-agent append FILE                                   what is read goes to the end of the file
//
// JOB is a folder. The supervisor holds a lock on JOB/supervisor as long as it lives, so that nobody needs to guess from
// process numbers: the kernel lets go of the lock however the supervisor ends, and no lock survives a reboot.

#include "clock.h"

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <string>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

namespace melt {
namespace {

constexpr int bad_usage = 2;
constexpr int no_job = 3;         // there is no such job, or it has one already
constexpr int without_end = 4;    // the supervisor is gone and left no status
constexpr int cannot_start = 126; // as shells say it
constexpr int64_t second_ns = 1'000'000'000;
constexpr int64_t grace_ns = 5 * second_ns;
constexpr int64_t sweep_ns = 10 * second_ns;
constexpr int heartbeat_s = 10;
const std::string mark = "MELTREPRO_JOB=";

int fail(const std::string & what, int code) {
    std::fprintf(stderr, "melt-agent: %s: %s\n", what.c_str(), std::strerror(errno));
    return code;
}

std::string read_text(const std::string & path) {
    std::string text;
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    char part[4096];
    for (ssize_t count = 0; file >= 0 && (count = read(file, part, sizeof(part))) > 0;) {
        text.append(part, static_cast<size_t>(count));
    }
    if (file >= 0) {
        close(file);
    }
    return text;
}

bool write_all(int file, const std::string & text) {
    for (size_t done = 0; done < text.size();) {
        const ssize_t count = write(file, text.data() + done, text.size() - done);
        if (count < 0 && errno != EINTR) {
            return false;
        }
        done += count > 0 ? static_cast<size_t>(count) : 0;
    }
    return true;
}

// Calls `each` with the number of every process.
template <typename Each> void for_processes(Each each) {
    DIR * folder = opendir("/proc");
    for (const dirent * entry = nullptr; folder != nullptr && (entry = readdir(folder)) != nullptr;) {
        if (std::strspn(entry->d_name, "0123456789") == std::strlen(entry->d_name)) {
            each(static_cast<pid_t>(std::atoi(entry->d_name)));
        }
    }
    if (folder != nullptr) {
        closedir(folder);
    }
}

// Processes that the kernel has killed for lack of memory since boot; -1 where it does not say.
long out_of_memory_kills() {
    const std::string text = "\n" + read_text("/proc/vmstat");
    const std::string key = "\noom_kill ";
    const size_t found = text.find(key);
    return found == std::string::npos ? -1 : std::atol(text.c_str() + found + key.size());
}

pid_t parent_of(pid_t pid) {
    const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
    const size_t name_end = stat.rfind(')'); // a name may hold anything
    pid_t parent = 0;
    if (name_end != std::string::npos) {
        std::sscanf(stat.c_str() + name_end + 1, " %*c %d", &parent);
    }
    return parent;
}

// -- supervise -----------------------------------------------------------------------------------------------------

struct End {
    int status = 0; // of waitpid
    bool timed_out = false;
    bool stopped = false;
    int64_t begin_ns = 0;
    int64_t end_ns = 0;
    long max_rss_kib = 0;
};

[[noreturn]] void become(const std::string & job, char ** argv) {
    setpgid(0, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGHUP, SIG_DFL);
    const int nothing = open("/dev/null", O_RDONLY);
    const int out = open("stdout.log", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int err = open("stderr.log", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    dup2(nothing, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(nothing);
    close(out);
    close(err);
    setenv("MELTREPRO_JOB", job.c_str(), 1);
    execv(argv[0], argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], std::strerror(errno));
    _exit(cannot_start);
}

// Until the program has ended, by itself or because it has to. The signals of `set` are blocked.
End watch(pid_t program, double seconds, const sigset_t & set) {
    End end;
    end.begin_ns = monotonic_ns();
    int64_t due_ns = end.begin_ns + static_cast<int64_t>(seconds * second_ns);
    for (;;) {
        const int64_t left_ns = due_ns - monotonic_ns();
        if (left_ns <= 0) {
            end.timed_out = !end.stopped;
            kill(-program, SIGKILL);
        }
        const int64_t wait_ns = left_ns > 0 ? left_ns : second_ns;
        const timespec rest{static_cast<time_t>(wait_ns / second_ns), static_cast<long>(wait_ns % second_ns)};
        const int signal = sigtimedwait(&set, nullptr, &rest);
        if (signal == SIGTERM || signal == SIGINT) {
            end.stopped = true;
            kill(-program, SIGTERM);
            due_ns = monotonic_ns() + grace_ns;
        }
        rusage usage{};
        for (int status = 0, pid = 0; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
            if (pid == program) {
                end.status = status;
                end.end_ns = monotonic_ns();
                end.max_rss_kib = usage.ru_maxrss;
                return end;
            }
        }
    }
}

// Kills what the program left; whatever lost its parent is ours, because we are the subreaper.
void sweep(pid_t group) {
    const int64_t until_ns = monotonic_ns() + sweep_ns;
    kill(-group, SIGKILL);
    while (monotonic_ns() < until_ns) {
        pid_t ended = 0;
        while ((ended = waitpid(-1, nullptr, WNOHANG)) > 0) {
        }
        if (ended < 0 && errno == ECHILD) {
            return;
        }
        for_processes([](pid_t pid) {
            if (parent_of(pid) == getpid()) {
                kill(pid, SIGKILL);
            }
        });
        usleep(10'000);
    }
}

bool write_status(const End & end, bool out_of_memory) {
    const int code = WIFSIGNALED(end.status) ? 128 + WTERMSIG(end.status) : WEXITSTATUS(end.status);
    const auto truth = [](bool value) { return value ? "true" : "false"; };
    char text[400];
    std::snprintf(text, sizeof(text),
                  "{\"exit\":%d,\"timed_out\":%s,\"stopped\":%s,\"out_of_memory\":%s,\"begin_ns\":%lld,\"end_ns\":%lld,"
                  "\"max_rss_bytes\":%lld}\n",
                  code, truth(end.timed_out), truth(end.stopped), truth(out_of_memory),
                  static_cast<long long>(end.begin_ns), static_cast<long long>(end.end_ns),
                  static_cast<long long>(end.max_rss_kib) * 1024);
    const int file = open("status.part", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    const bool written = file >= 0 && write_all(file, text) && fsync(file) == 0;
    if (file >= 0) {
        close(file);
    }
    return written && rename("status.part", "status") == 0;
}

// The supervisor itself, in a session of its own; a byte on `ready` says that the program runs.
int oversee(const std::string & job, double seconds, char ** argv, int ready) {
    setsid();
    const int lock = open("supervisor", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (lock < 0) {
        return fail(job + "/supervisor", no_job);
    }
    if (flock(lock, LOCK_EX | LOCK_NB) != 0 || !write_all(lock, std::to_string(getpid()) + "\n")) {
        return fail(job + "/supervisor", no_job);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGHUP, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    for (const int each : {SIGCHLD, SIGTERM, SIGINT}) {
        sigaddset(&set, each);
    }
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const long kills = out_of_memory_kills();
    const pid_t program = fork();
    if (program == 0) {
        become(job, argv);
    }
    if (program < 0) {
        return fail("fork", cannot_start);
    }
    setpgid(program, program);
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (const int each : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        dup2(nothing, each); // a link is not over as long as anybody holds its ends
    }
    write_all(ready, "r");
    close(ready);
    const End end = watch(program, seconds, set);
    sweep(program);
    const bool killed = WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGKILL && !end.timed_out && !end.stopped;
    return write_status(end, killed && out_of_memory_kills() > kills) ? 0 : 1;
}

int supervise(const std::string & job, double seconds, char ** argv) {
    if (chdir(job.c_str()) != 0) {
        return fail(job, no_job);
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return fail("pipe", cannot_start);
    }
    const pid_t supervisor = fork();
    if (supervisor == 0) {
        close(ends[0]);
        _exit(oversee(job, seconds, argv, ends[1]));
    }
    if (supervisor < 0) {
        return fail("fork", cannot_start);
    }
    close(ends[1]);
    char byte = 0;
    if (read(ends[0], &byte, 1) == 1) {
        return 0;
    }
    int status = 0;
    waitpid(supervisor, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : cannot_start;
}

// -- wait, stop, clock ---------------------------------------------------------------------------------------------

void on_alarm(int) {}

// Returns the supervisor's lock file; interrupts every blocking call once in `seconds` from now on.
int open_lock(const std::string & job, int seconds) {
    struct sigaction action {};
    action.sa_handler = on_alarm; // without SA_RESTART: a blocking call ends
    sigaction(SIGALRM, &action, nullptr);
    itimerval timer{};
    timer.it_interval.tv_sec = seconds;
    timer.it_value.tv_sec = seconds;
    setitimer(ITIMER_REAL, &timer, nullptr);
    return open((job + "/supervisor").c_str(), O_RDONLY | O_CLOEXEC);
}

int wait(const std::string & job) {
    const int lock = open_lock(job, heartbeat_s);
    if (lock < 0) {
        return fail(job + "/supervisor", no_job);
    }
    while (flock(lock, LOCK_SH) != 0) {
        if (errno != EINTR || !write_all(STDOUT_FILENO, ".")) {
            return fail(job, 1);
        }
    }
    const std::string status = read_text(job + "/status");
    write_all(STDOUT_FILENO, "\n" + status);
    return status.empty() ? without_end : 0;
}

// Kills whatever carries the job's mark in its environment; returns whether there was anything.
bool kill_marked(const std::string & job) {
    const std::string entry = mark + job;
    bool found = false;
    for_processes([&](pid_t pid) {
        const std::string environment = read_text("/proc/" + std::to_string(pid) + "/environ");
        for (size_t at = 0; at < environment.size(); at += std::strlen(environment.c_str() + at) + 1) {
            if (entry == environment.c_str() + at && kill(pid, SIGKILL) == 0) {
                found = true;
            }
        }
    });
    return found;
}

// Prints whether anything still ran.
int stop(const std::string & job) {
    const int lock = open_lock(job, 1);
    bool ran = false;
    if (lock >= 0) {
        const int64_t until_ns = monotonic_ns() + grace_ns + sweep_ns;
        while (flock(lock, LOCK_SH | LOCK_NB) != 0) {
            const auto pid = static_cast<pid_t>(std::atoi(read_text(job + "/supervisor").c_str()));
            const bool late = monotonic_ns() > until_ns;
            if (pid > 1 && (late || !ran)) {
                ran = true;
                kill(pid, late ? SIGKILL : SIGTERM);
            }
            usleep(20'000);
        }
    }
    for (int64_t until_ns = monotonic_ns() + sweep_ns; kill_marked(job);) {
        ran = true;
        if (monotonic_ns() > until_ns) {
            errno = EBUSY;
            return fail(job, 1);
        }
        usleep(10'000);
    }
    std::puts(ran ? "stopped" : "idle");
    return 0;
}

int clock() {
    for (char byte = 0; read(STDIN_FILENO, &byte, 1) == 1;) {
        char line[80];
        std::snprintf(line, sizeof(line), "%lld %lld %lld\n", static_cast<long long>(monotonic_ns()),
                      static_cast<long long>(clock_ns(CLOCK_BOOTTIME)), static_cast<long long>(wall_ns()));
        if (!write_all(STDOUT_FILENO, line)) {
            return 1;
        }
    }
    return 0;
}

// In large pieces: tools of phones write four kibibytes at a time.
int append(const std::string & path) {
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0) {
        return fail(path, 1);
    }
    std::string piece(1 << 20, '\0');
    size_t size = 0;
    for (ssize_t count = 1; count != 0;) {
        count = read(STDIN_FILENO, &piece[size], piece.size() - size);
        if (count < 0 && errno != EINTR) {
            return fail("standard input", 1);
        }
        size += count > 0 ? static_cast<size_t>(count) : 0;
        if (count == 0 || size == piece.size()) {
            if (!write_all(file, piece.substr(0, size))) {
                return fail(path, 1);
            }
            size = 0;
        }
    }
    return close(file) == 0 ? 0 : fail(path, 1);
}

}  // namespace
}  // namespace melt

int main(int argc, char ** argv) {
    const std::string command = argc > 1 ? argv[1] : "";
    if (command == "supervise" && argc > 4 && std::atof(argv[3]) > 0) {
        return melt::supervise(argv[2], std::atof(argv[3]), argv + 4);
    }
    if (command == "wait" && argc == 3) {
        return melt::wait(argv[2]);
    }
    if (command == "stop" && argc == 3) {
        return melt::stop(argv[2]);
    }
    if (command == "clock" && argc == 2) {
        return melt::clock();
    }
    if (command == "append" && argc == 3) {
        return melt::append(argv[2]);
    }
    std::fprintf(stderr, "usage: melt-agent supervise JOB SECONDS PROGRAM [ARGUMENT...] | wait JOB | stop JOB | clock | "
                         "append FILE\n");
    return melt::bad_usage;
}
