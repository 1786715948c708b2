#include "process.h"

#include <cerrno>
#include <string>
#include <sys/resource.h>

#if defined(__linux__)
#include <sched.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace melt {
namespace {

#if defined(__linux__)

const char * scheduler() {
    // musl's own function of this name refuses to ask.
    switch (syscall(SYS_sched_getscheduler, 0) & ~0x40000000L) {  // without SCHED_RESET_ON_FORK
        case SCHED_OTHER: return "other";
        case SCHED_BATCH: return "batch";
        case SCHED_IDLE: return "idle";
        case SCHED_FIFO: return "fifo";
        case SCHED_RR: return "rr";
        default: return "unknown";
    }
}

// The CPUs that it may run on, as the kernel writes such lists: `0-3,6`; empty where they cannot be had.
std::string allowed_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return "";
    }
    std::string list;
    for (int first = 0; first < CPU_SETSIZE; ++first) {
        if (!CPU_ISSET(first, &set)) {
            continue;
        }
        int last = first;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) {
            ++last;
        }
        list += (list.empty() ? "" : ",") + std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
        first = last;
    }
    return list;
}

#endif

}  // namespace

Json::Object process_facts() {
    Json::Object facts;
    errno = 0;
    const int nice = getpriority(PRIO_PROCESS, 0);
    if (errno == 0) {
        facts.emplace_back("nice", nice);
    }
    rlimit limit{};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        facts.emplace_back("memlock_bytes", limit.rlim_cur == RLIM_INFINITY ? Json("unlimited") : Json(limit.rlim_cur));
    }
#if defined(__linux__)
    facts.emplace_back("scheduler", scheduler());
    if (const std::string cpus = allowed_cpus(); !cpus.empty()) {
        facts.emplace_back("cpus", cpus);
    }
    if (const int persona = personality(0xffffffff); persona != -1) {
        facts.emplace_back("aslr", (persona & ADDR_NO_RANDOMIZE) == 0);
    }
#endif
    return facts;
}

}  // namespace melt
