// What a request may set of llama.cpp besides context, threads and batch: a line an option, with the parameter that it sets.
// An option that a request does not name leaves what the release does by itself.
#pragma once

#include "fields.h"
#include "json.h"
#include "llama.h"

#if MELT_LLAMA_API >= 202610
#include "ggml-cpu.h"
#endif

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace melt {

enum Loading { load_mmap, load_read, load_direct, load_auto };

// All that is passed to llama.cpp, with what pointers in it point to.
struct Parameters {
    Parameters() {
        model.n_gpu_layers = 0;
        context.n_threads_batch = 0;  // as many as generate
#if MELT_LLAMA_API >= 202610
        context.n_ubatch = 0;  // the whole batch
#endif
    }
    Parameters(const Parameters &) = delete;
    Parameters & operator=(const Parameters &) = delete;

    llama_model_params model = llama_model_default_params();
    llama_context_params context = llama_context_default_params();
    ggml_numa_strategy numa = GGML_NUMA_STRATEGY_DISABLED;
    Loading load = load_mmap;
    bool mlock = false;
    std::vector<float> shares;  // of the model on each GPU
#if MELT_LLAMA_API >= 202610
    ggml_threadpool_params pool = ggml_threadpool_params_default(1);
    int32_t cpu_moe = 0;  // layers
    std::vector<std::string> patterns;
    std::vector<llama_model_tensor_buft_override> placed;
#endif
};

struct Option {
    std::string name;
    std::function<void(Fields &, Parameters &)> take;
    std::function<Json(const Parameters &)> tell;  // null: the model's own; no function: `effective` has it by another name
    bool of_gpu = false;                     // nothing to tell without one
};

// In these, `field` gives the parameter that is set.
#define MELT_PARAMETER(path) [](auto & p) -> auto & { return p.path; }

template <typename Parameter, typename Value>
void set(Parameter & parameter, Value value) {
    parameter = static_cast<Parameter>(value);
}

template <typename Field>
Option whole(const std::string & name, int64_t low, int64_t high, Field field) {
    const auto take = [=](Fields & fields, Parameters & p) {
        if (const Json * value = fields.optional(name)) {
            set(field(p), fields.to_integer(name, *value, low, high));
        }
    };
    return {name, take, [=](const Parameters & p) { return Json(static_cast<int64_t>(field(p))); }};
}

template <typename Field>
Option flag(const std::string & name, Field field) {
    return {name, [=](Fields & fields, Parameters & p) { field(p) = fields.boolean_or(name, field(p)); },
            [=](const Parameters & p) { return Json(static_cast<bool>(field(p))); }};
}

// A number above `low`; releases have others for "as the model says".
template <typename Field>
Option real(const std::string & name, double low, Field field) {
    const auto take = [=](Fields & fields, Parameters & p) {
        if (fields.optional(name) != nullptr) {
            set(field(p), fields.number(name, low, 1e9));
        }
    };
    const auto tell = [=](const Parameters & p) -> Json {
        if (static_cast<double>(field(p)) <= low) {
            return nullptr;
        }
        std::ostringstream text;  // not the digits that a float does not have
        text.precision(7);
        text << field(p);
        return std::strtod(text.str().c_str(), nullptr);
    };
    return {name, take, tell};
}

template <typename Field>
Option choice(const std::string & name, const std::vector<std::pair<std::string, int64_t>> & choices, Field field) {
    const auto take = [=](Fields & fields, Parameters & p) {
        const Json * value = fields.optional(name);
        if (value == nullptr) {
            return;
        }
        std::string known;
        for (const auto & [text, meaning] : choices) {
            if (const auto * asked = value->as<std::string>(); asked != nullptr && *asked == text) {
                return set(field(p), meaning);
            }
            known += (known.empty() ? "" : ", ") + text;
        }
        fields.wrong(name, "expected one of " + known + ", got " + shown(*value));
    };
    const auto tell = [=](const Parameters & p) -> Json {
        for (const auto & [text, meaning] : choices) {
            if (static_cast<int64_t>(field(p)) == meaning) {
                return text;
            }
        }
        return nullptr;
    };
    return {name, take, tell};
}

// A text that is not empty; `read` says whether it is one.
inline Option text(const std::string & name, const std::string & expected, bool (*read)(const std::string &, Parameters &),
                   std::function<Json(const Parameters &)> tell) {
    const auto take = [=](Fields & fields, Parameters & p) {
        const Json * value = fields.optional(name);
        if (value != nullptr && !read(fields.to_text(name, *value), p)) {
            fields.wrong(name, "expected " + expected + ", got " + shown(*value));
        }
    };
    return {name, take, std::move(tell)};
}

inline Option of_gpu(Option option) {
    option.of_gpu = true;
    return option;
}

inline Option told_elsewhere(Option option) {
    option.tell = nullptr;
    return option;
}

// Without several nodes of memory, it changes nothing.
inline Option on_nodes(Option option) {
    option.tell = [tell = option.tell](const Parameters & p) { return ggml_is_numa() ? tell(p) : Json("off"); };
    return option;
}

inline bool read_type(const std::string & text, ggml_type & found) {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_0, GGML_TYPE_Q4_1,
#if MELT_LLAMA_API >= 202610
                                 GGML_TYPE_BF16, GGML_TYPE_IQ4_NL,
#endif
                                 GGML_TYPE_Q4_0}) {
        if (text == ggml_type_name(type)) {
            found = type;
            return true;
        }
    }
    return false;
}

// `q8_0`, or of keys and of values: `q8_0-f16`.
inline bool read_kv_type(const std::string & text, Parameters & p) {
    const size_t dash = text.find('-');
    const std::string values = dash == std::string::npos ? text : text.substr(dash + 1);
    if (!read_type(text.substr(0, dash), p.context.type_k) || !read_type(values, p.context.type_v)) {
        return false;
    }
#if MELT_LLAMA_API >= 202610
    return true;
#else
    return !ggml_is_quantized(p.context.type_v);  // this release writes values one by one
#endif
}

inline bool read_tensor_split(const std::string & text, Parameters & p) {
    std::istringstream parts(text);
    p.shares.clear();
    for (std::string part; std::getline(parts, part, '-');) {
        char * end = nullptr;
        p.shares.push_back(std::strtof(part.c_str(), &end));
        if (part.empty() || *end != '\0' || !(p.shares.back() >= 0)) {
            return false;
        }
    }
    if (p.shares.size() > llama_max_devices()) {
        return false;
    }
    p.shares.resize(llama_max_devices());
    p.model.tensor_split = p.shares.data();
    return true;
}

inline Json tell_tensor_split(const Parameters & p) {
    std::ostringstream text;
    for (const float share : p.shares) {
        text << (text.tellp() == 0 ? "" : "-") << share;
    }
    return p.shares.empty() ? Json("even") : Json(text.str());
}

#if MELT_LLAMA_API >= 202610

// CPUs as the kernel lists them: `0-3,6`.
inline bool read_affinity(const std::string & text, Parameters & p) {
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        char * end = nullptr;
        const unsigned long first = std::strtoul(part.c_str(), &end, 10);
        const unsigned long last = *end == '-' ? std::strtoul(end + 1, &end, 10) : first;
        if (part.empty() || part.back() == '-' || *end != '\0' || last < first || last >= GGML_MAX_N_THREADS) {
            return false;
        }
        std::fill(p.pool.cpumask + first, p.pool.cpumask + last + 1, true);
    }
    return true;
}

// The experts of the first layers stay in main memory.
inline void place_experts(Parameters & p) {
    for (int32_t layer = 0; layer < p.cpu_moe; ++layer) {
        p.patterns.push_back("^blk\\." + std::to_string(layer) + "\\.ffn_(up|down|gate|gate_up)_(ch|)exps");
    }
    for (const std::string & pattern : p.patterns) {
        p.placed.push_back({pattern.c_str(), ggml_backend_cpu_buffer_type()});
    }
    p.placed.push_back({nullptr, nullptr});
    p.model.tensor_buft_overrides = p.placed.data();
}

#endif

inline const std::vector<Option> & all_options() {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    static const std::vector<Option> options = {
        told_elsewhere(whole("threads_batch", 1, 512, MELT_PARAMETER(context.n_threads_batch))),
        text("kv_type", "a type of keys and values that this release has, or one for each, as q8_0-f16", read_kv_type, nullptr),
        flag("mlock", MELT_PARAMETER(mlock)),
        on_nodes(choice("numa",
                        {{"off", GGML_NUMA_STRATEGY_DISABLED},
                         {"distribute", GGML_NUMA_STRATEGY_DISTRIBUTE},
                         {"isolate", GGML_NUMA_STRATEGY_ISOLATE},
                         {"numactl", GGML_NUMA_STRATEGY_NUMACTL}},
                        MELT_PARAMETER(numa))),
        choice("rope_scaling",
               {{"none", LLAMA_ROPE_SCALING_TYPE_NONE},
                {"linear", LLAMA_ROPE_SCALING_TYPE_LINEAR},
#if MELT_LLAMA_API >= 202610
                {"longrope", LLAMA_ROPE_SCALING_TYPE_LONGROPE},
#endif
                {"yarn", LLAMA_ROPE_SCALING_TYPE_YARN}},
               MELT_PARAMETER(context.rope_scaling_type)),
        real("rope_freq_base", 0, MELT_PARAMETER(context.rope_freq_base)),
        real("rope_freq_scale", 0, MELT_PARAMETER(context.rope_freq_scale)),
        real("yarn_ext_factor", -1, MELT_PARAMETER(context.yarn_ext_factor)),
        real("yarn_attn_factor", 0, MELT_PARAMETER(context.yarn_attn_factor)),
        real("yarn_beta_fast", 0, MELT_PARAMETER(context.yarn_beta_fast)),
        real("yarn_beta_slow", 0, MELT_PARAMETER(context.yarn_beta_slow)),
        real("yarn_orig_ctx", 0, MELT_PARAMETER(context.yarn_orig_ctx)),
        told_elsewhere(whole("gpu_layers", 0, most, MELT_PARAMETER(model.n_gpu_layers))),
        of_gpu(flag("kv_offload", MELT_PARAMETER(context.offload_kqv))),
        of_gpu(whole("main_gpu", 0, 127, MELT_PARAMETER(model.main_gpu))),
        of_gpu(text("tensor_split", "a share for each GPU, as 3-1", read_tensor_split, tell_tensor_split)),
        of_gpu(choice("split_mode",
                      {{"none", LLAMA_SPLIT_MODE_NONE},
                       {"layer", LLAMA_SPLIT_MODE_LAYER},
#if MELT_LLAMA_API >= 202610
                       {"tensor", LLAMA_SPLIT_MODE_TENSOR},
#endif
                       {"row", LLAMA_SPLIT_MODE_ROW}},
                      MELT_PARAMETER(model.split_mode))),
        // `mmap` is the older of two ways to say it.
        {"mmap", [](Fields & fields, Parameters & p) { p.load = fields.boolean_or("mmap", true) ? load_mmap : load_read; },
         [](const Parameters & p) { return Json(p.load == load_mmap && llama_supports_mmap()); }},
#if MELT_LLAMA_API >= 202610
        choice("load", {{"mmap", load_mmap}, {"read", load_read}, {"direct", load_direct}, {"auto", load_auto}},
               MELT_PARAMETER(load)),
        told_elsewhere(whole("ubatch", 1, most, MELT_PARAMETER(context.n_ubatch))),
        told_elsewhere(choice("flash_attention",
                              {{"auto", LLAMA_FLASH_ATTN_TYPE_AUTO},
                               {"on", LLAMA_FLASH_ATTN_TYPE_ENABLED},
                               {"off", LLAMA_FLASH_ATTN_TYPE_DISABLED}},
                              MELT_PARAMETER(context.flash_attn_type))),
        flag("swa_full", MELT_PARAMETER(context.swa_full)),
        flag("repack", MELT_PARAMETER(model.use_extra_bufts)),
        choice("lazy", {{"off", LLAMA_LAZY_MODE_OFF}, {"auto", LLAMA_LAZY_MODE_AUTO}, {"on", LLAMA_LAZY_MODE_ON}},
               MELT_PARAMETER(model.lazy_mode)),
        // Where threads are and with what priority, the kernel tells.
        text("affinity", "a list of CPUs, as 0-3,6", read_affinity, nullptr),
        flag("affinity_strict", MELT_PARAMETER(pool.strict_cpu)),
        told_elsewhere(choice("priority",
                              {{"low", GGML_SCHED_PRIO_LOW},
                               {"normal", GGML_SCHED_PRIO_NORMAL},
                               {"medium", GGML_SCHED_PRIO_MEDIUM},
                               {"high", GGML_SCHED_PRIO_HIGH},
                               {"realtime", GGML_SCHED_PRIO_REALTIME}},
                              MELT_PARAMETER(pool.prio))),
        whole("poll", 0, 100, MELT_PARAMETER(pool.poll)),
        of_gpu(whole("cpu_moe", 0, 1000, MELT_PARAMETER(cpu_moe))),
        of_gpu(flag("op_offload", MELT_PARAMETER(context.op_offload))),
        of_gpu(flag("no_host", MELT_PARAMETER(model.no_host))),
#else
        choice("load", {{"mmap", load_mmap}, {"read", load_read}}, MELT_PARAMETER(load)),
#endif
    };
    return options;
}

#undef MELT_PARAMETER

}  // namespace melt
