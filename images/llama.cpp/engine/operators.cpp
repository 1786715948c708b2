#include "operators.h"

#include "clock.h"
#include "ggml.h"

#include <cstring>

namespace melt {

bool computes(const ggml_tensor * node) {
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_VIEW:
        case GGML_OP_RESHAPE:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return false;
        default:
            return true;
    }
}

namespace {

constexpr const char * weight_suffix = ".weight";

// `blk.7.ffn_up.weight` is the module `ffn_up` of layer 7.
std::string without_layer(const std::string & name) {
    const size_t begin = name.rfind("blk.", 0) == 0 ? name.find('.', 4) + 1 : 0;
    return name.substr(begin, name.size() - begin - std::strlen(weight_suffix));
}

bool is_weight(const std::string & name) {
    const size_t length = std::strlen(weight_suffix);
    return name.size() > length && name.compare(name.size() - length, length, weight_suffix) == 0;
}

void copy_name(std::array<char, 64> & to, const ggml_tensor * tensor) {
    static_assert(GGML_MAX_NAME <= 64, "a tensor's name is cut off");
    std::strncpy(to.data(), tensor == nullptr ? "" : ggml_get_name(tensor), to.size() - 1);
}

NodeNames names_of(const ggml_tensor * node) {
    NodeNames names{ggml_op_name(node->op), {}, {}};
    copy_name(names.node, node);
    for (size_t i = 0; i < names.sources.size(); ++i) {
        copy_name(names.sources[i], node->src[i]);
    }
    return names;
}

// The weight that a node multiplies or looks up, else the name that the framework gave the node (`kq-7`, `Qcur-7 (view)`,
// `cache_k_l7`) without layer and remarks; empty where it gave none.
std::string module_of(const NodeNames & names) {
    for (const auto & source : names.sources) {
        if (is_weight(source.data())) {
            return without_layer(source.data());
        }
    }
    std::string name = names.node.data();
    name = name.substr(0, name.find(" ("));
    const size_t last = name.find_last_not_of("0123456789");
    if (last != std::string::npos && last + 1 < name.size()) {
        if (name[last] == '-') {
            name.resize(last);
        } else if (last > 0 && name.compare(last - 1, 2, "_l") == 0) {
            name.resize(last - 1);
        }
    }
    return name.rfind("node_", 0) == 0 ? "" : name;
}

}  // namespace

std::string module_of(const ggml_tensor * node) { return module_of(names_of(node)); }

bool uses_weight(const ggml_tensor * node) { return node->src[0] != nullptr && is_weight(ggml_get_name(node->src[0])); }

bool Operators::callback(ggml_tensor * node, bool ask, void * operators) {
    auto & self = *static_cast<Operators *>(operators);
    if (ask) {
        self.begin = monotonic_ns();
        return computes(node);
    }
    const int64_t ns = monotonic_ns() - self.begin;
    self.computed.push_back({names_of(node), self.begin, ns});
    return true;
}

std::vector<Operation> Operators::take() {
    std::vector<Operation> operations;
    for (const Computed & each : computed) {
        operations.push_back({each.names.op, module_of(each.names), each.begin, each.ns});
    }
    computed.clear();
    return operations;
}

}  // namespace melt
