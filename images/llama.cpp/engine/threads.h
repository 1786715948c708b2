// The threads that compute: where and how they are to run, and where the kernel has put them.
#pragma once

#include "json.h"
#include "options.h"

#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#if defined(__linux__)
#include <dirent.h>
#include <sched.h>
#include <unistd.h>
#endif

namespace melt {

// What the kernel says of a thread.
struct Placed {
    std::string cpus;      // that it may run on: `0-3,6`
    std::string priority;  // `other`, `batch`, `fifo 40`
};

#if defined(__linux__)

inline std::set<int> thread_ids() {
    std::set<int> found;
    if (DIR * folder = opendir("/proc/self/task")) {
        while (const dirent * entry = readdir(folder)) {
            if (const int id = std::atoi(entry->d_name); id > 0) {
                found.insert(id);
            }
        }
        closedir(folder);
    }
    return found;
}

inline Placed placed(int id) {
    const std::string folder = "/proc/self/task/" + std::to_string(id);
    Placed found;
    const std::string wanted = "Cpus_allowed_list:";
    std::ifstream status(folder + "/status");
    for (std::string line; std::getline(status, line);) {
        if (line.compare(0, wanted.size(), wanted) == 0) {
            std::istringstream(line.substr(wanted.size())) >> found.cpus;
        }
    }
    std::ifstream stat(folder + "/stat");
    std::string line;
    std::getline(stat, line);
    std::istringstream fields(line.substr(line.rfind(')') == std::string::npos ? 0 : line.rfind(')') + 1));
    std::string field, priority, policy;
    for (int number = 3; number <= 41 && fields >> field; ++number) {  // as proc(5) counts them
        priority = number == 40 ? field : priority;
        policy = number == 41 ? field : policy;
    }
    static const char * const policies[] = {"other", "fifo", "rr", "batch", "", "idle"};
    const int known = policy.empty() ? -1 : std::atoi(policy.c_str());
    found.priority = known < 0 || known > SCHED_IDLE ? policy : policies[known];
    found.priority += priority.empty() || priority == "0" ? "" : " " + priority;
    return found;
}

// Bytes that may not leave memory.
inline int64_t locked_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.compare(0, 6, "VmLck:") == 0) {
            return std::atoll(line.c_str() + 6) * 1024;
        }
    }
    return 0;
}

#else

inline std::set<int> thread_ids() { return {}; }
inline Placed placed(int) { return {}; }
inline int64_t locked_bytes() { return 0; }

#endif

// Of all threads: one text where they are alike, else each one's, the first thread's first.
inline std::string joined(const std::vector<std::string> & each) {
    const std::set<std::string> different(each.begin(), each.end());
    if (different.size() == 1) {
        return each.front();
    }
    std::string list;
    for (const std::string & one : each) {
        list += (list.empty() ? "" : " | ") + one;
    }
    return list;
}

#if MELT_LLAMA_API >= 202610

// Without a pool of its own, every graph would start and join threads anew.
class Threads {
public:
    // As many as prefill have a pool of their own where they are not those that generate.
    Threads(int32_t count, int32_t batch_count, const ggml_threadpool_params & asked) : others(thread_ids()) {
        if (batch_count != count) {
            batch = start(batch_count, asked);
            ggml_threadpool_pause(batch);
        }
        pool = start(count, asked);
    }
    ~Threads() {
        ggml_threadpool_free(pool);
        ggml_threadpool_free(batch);
    }
    Threads(const Threads &) = delete;
    Threads & operator=(const Threads &) = delete;

    void attach(llama_context * context) const { llama_attach_threadpool(context, pool, batch); }

    void add_to(Json::Object & fields) const {
        std::vector<std::string> cpus, priorities;
        for (const int id : thread_ids()) {
            if (others.count(id) == 0 || id == *others.begin()) {  // the first thread computes too
                const Placed found = placed(id);
                cpus.push_back(found.cpus);
                priorities.push_back(found.priority);
            }
        }
        if (!cpus.empty()) {
            fields.emplace_back("affinity", joined(cpus));
            fields.emplace_back("priority", joined(priorities));
        }
    }

private:
    static ggml_threadpool * start(int32_t count, ggml_threadpool_params params) {
        params.n_threads = count;
        ggml_threadpool * made = ggml_threadpool_new(&params);
        const bool placing = std::find(std::begin(params.cpumask), std::end(params.cpumask), true) != std::end(params.cpumask);
        if (placing || params.prio != GGML_SCHED_PRIO_NORMAL) {
            settle(made, count);
        }
        return made;
    }

    // Threads place themselves when they start. A graph that all of them have computed has waited for that.
    static void settle(ggml_threadpool * pool, int32_t count) {
        ggml_init_params memory = {1 << 20, nullptr, false};
        ggml_context * context = ggml_init(memory);
        ggml_cgraph * graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, ggml_neg(context, ggml_new_tensor_1d(context, GGML_TYPE_F32, 1)));
        ggml_cplan plan = ggml_graph_plan(graph, count, pool);
        std::vector<uint8_t> work(plan.work_size + 1);
        plan.work_data = work.data();
        ggml_graph_compute(graph, &plan);
        ggml_free(context);
    }

    std::set<int> others;
    ggml_threadpool * batch = nullptr;
    ggml_threadpool * pool = nullptr;
};

#else

// This release starts threads for every graph.
struct Threads {
    void attach(llama_context *) const {}
    void add_to(Json::Object &) const {}
};

#endif

}  // namespace melt
