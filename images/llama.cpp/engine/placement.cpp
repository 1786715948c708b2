#include "placement.h"

// The library's own headers: no function of its API tells. Apps get the library without them.
#if __has_include("llama-context.h")
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-memory.h"

#include "operators.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace melt {
namespace {

// Operator, module, backend, whether it looks up rows of weights, and why no GPU computes it -> how often.
using Counts = std::map<std::tuple<std::string, std::string, std::string, bool, std::string>, int64_t>;

std::string name_of(ggml_backend_t backend) {
    return backend == nullptr ? "unknown" : ggml_backend_dev_name(ggml_backend_get_device(backend));
}

// Why a node is left to the CPU; empty where it is not, or no GPU is there.
std::string why(const ggml_tensor * node, ggml_backend_t backend) {
    ggml_backend_dev_t gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    gpu = gpu == nullptr ? ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU) : gpu;
    if (gpu == nullptr || backend == nullptr ||
        ggml_backend_dev_type(ggml_backend_get_device(backend)) != GGML_BACKEND_DEVICE_TYPE_CPU) {
        return "";
    }
    if (!ggml_backend_dev_supports_op(gpu, node)) {
        return std::string(ggml_backend_dev_name(gpu)) + " cannot compute it";
    }
    return uses_weight(node) ? "its weights lie in main memory" : "what it computes with lies in main memory";
}

void add_operators(Json::Array & list, const char * phase, llama_context * context, uint32_t tokens,
                   const llama_memory_context_i * memory) {
    ggml_cgraph * graph = context->graph_reserve(tokens, context->n_seq_max(), context->n_seq_max(), memory, true);
    Counts counts;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        ggml_tensor * node = ggml_graph_node(graph, i);
        if (computes(node)) {
            // Which llama.cpp leaves to the CPU by design: a row is read quickly, and the table is large.
            const bool lookup = node->op == GGML_OP_GET_ROWS && uses_weight(node);
            ggml_backend_t backend = ggml_backend_sched_get_tensor_backend(context->get_sched(), node);
            ++counts[{ggml_op_name(node->op), module_of(node), name_of(backend), lookup, why(node, backend)}];
        }
    }
    for (const auto & [what, count] : counts) {
        const auto & [name, module, backend, lookup, reason] = what;
        list.push_back(Json::Object{{"phase", phase},
                                    {"backend", backend},
                                    {"op", name},
                                    {"module", module},
                                    {"n", count},
                                    {"lookup", lookup},
                                    {"why", reason}});
    }
}

}  // namespace

Json placement(llama_context * context) {
    Json::Array bytes, operators;
    for (const auto & [type, data] : context->memory_breakdown()) {
        bytes.push_back(Json::Object{{"memory", ggml_backend_buft_name(type)},
                                     {"weights", data.model},
                                     {"context", data.context},
                                     {"compute", data.compute}});
    }
    const llama_memory_context_ptr memory = context->get_memory() == nullptr ? nullptr : context->get_memory()->init_full();
    // The prompt's last, as when the context is made: what is ready for it stays.
    add_operators(operators, "generation", context, context->n_seq_max(), memory.get());
    add_operators(operators, "prefill", context, std::min(context->n_ctx(), context->n_ubatch()), memory.get());
    return Json::Object{{"bytes", bytes}, {"operators", operators}};
}

}  // namespace melt

#else

namespace melt {

Json placement(llama_context *) { return nullptr; }

}  // namespace melt

#endif
