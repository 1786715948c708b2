#include "profile.h"

#include "clock.h"
#include "ggml.h"

#include <cstring>

namespace melt {
namespace {

constexpr const char * weight_suffix = ".weight";
constexpr int64_t detailed_call = 0;  // of each phase; all calls would be too many to write down

// Nodes that only look at memory in another way: nothing is computed, nothing is worth a clock reading.
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

bool OperatorProfile::on_node(const ggml_tensor * node, bool ask) {
    if (ask) {
        begin = monotonic_ns();
        return phase != Phase::none && computes(node);
    }
    const int64_t ns = monotonic_ns() - begin;
    computed.push_back({names_of(node), begin, ns});
    return true;
}

bool OperatorProfile::callback(ggml_tensor * node, bool ask, void * profile) {
    return static_cast<OperatorProfile *>(profile)->on_node(node, ask);
}

void OperatorProfile::on_decode(int64_t ns) {
    if (phase != Phase::none) {
        Totals & to = current();
        for (const Computed & each : computed) {
            const Operator what{each.names.op, module_of(each.names)};
            to.operators[what].add(each.ns);
            if (to.decoding.count == detailed_call) {
                to.nodes.push_back({what, each.begin, each.ns});
            }
        }
        to.decoding.add(ns);
    }
    computed.clear();
}

void OperatorProfile::write(Events & events) const {
    const char * const phases[] = {"prefill", "generation"};
    for (size_t i = 0; i < totals.size(); ++i) {
        if (totals[i].operators.empty()) {
            continue;
        }
        const Total & decoding = totals[i].decoding;
        events.add("decoding", {{"phase", phases[i]}, {"count", decoding.count}, {"ns", decoding.ns}});
        for (const auto & [what, total] : totals[i].operators) {
            events.add("op", {{"phase", phases[i]},
                              {"name", what.first},
                              {"module", what.second},
                              {"count", total.count},
                              {"ns", total.ns}});
        }
        for (const Node & node : totals[i].nodes) {
            events.add("node", {{"phase", phases[i]},
                                {"name", node.what.first},
                                {"module", node.what.second},
                                {"begin", node.begin},
                                {"ns", node.ns}});
        }
    }
}

}  // namespace melt
