// A model that MLC's compiler compiled, as an engine of the runner: TVM's virtual machine calls its operators, and keys and values
// stay in one buffer that grows in place.

#include "engine.h"

#include "folder.h"
#include "operators.h"
#include "signals.h"
#include "tvm.h"
#include "vocabulary.h"

#include <cstdlib>
#include <cstring>
#include <limits>

namespace melt {
namespace {

constexpr int64_t cpu = 1, pooled = 2;  // a kind of device, and of memory
constexpr int64_t block = 16;           // positions that lie together in the cache of keys, as the compiler has it

class Mlc : public Engine {
public:
    Identity identity() const override { return {"mlc", MELT_COMMIT, MELT_ISA, "TVM " MELT_RELEASE}; }

    bool profiles_operators() const override { return true; }

    // TVM reads these once, before its threads start; where those may run is the target's affair.
    void read_options(Fields & fields) override {
        threads = fields.integer("threads", 1, std::numeric_limits<int16_t>::max());
        spinning = fields.boolean_or("spinning", true);
        setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
        setenv("TVM_BIND_THREADS", "0", 1);
        if (!spinning) {
            setenv("TVM_THREAD_POOL_SPIN_COUNT", "0", 1);
        }
    }

    void check(const std::string & model) override { folder = std::make_unique<ModelFolder>(model); }

    ModelFacts load(const std::string & model) override {
        constexpr auto step = ExitCode::model;
        const Shape & shape = folder->shape;
        vocabulary = std::make_unique<Vocabulary>(model + "/vocabulary.gguf");
        if (vocabulary->size() != shape.vocabulary) {
            throw Failure(step, "the model has logits for " + std::to_string(shape.vocabulary) + " tokens, and its vocabulary " +
                                    std::to_string(vocabulary->size()));
        }
        throw_if_stopped();
        tvm = std::make_unique<Tvm>();
        const Value code = tvm->call(tvm->function("ffi.ModuleLoadFromFile"), {(model + "/model.so").c_str()}, step);
        machine = tvm->call(tvm->method(code, "vm_load_executable"), {}, step);
        tvm->call(tvm->method(machine, "vm_initialization"), {cpu, int64_t{0}, pooled}, step);
        prefill = tvm->method(machine, "prefill");
        decode_one = tvm->method(machine, "decode");
        tvm->call(tvm->function("vm.builtin.tensor_cache.load"), {model.c_str(), cpu, int64_t{0}}, step);
        throw_if_stopped();
        std::vector<Value> names;
        for (const std::string & name : folder->weights) {
            names.emplace_back(name.c_str());
        }
        weights = tvm->call(tvm->function("vm.builtin.param_array_from_cache_by_name_unpacked"), names, step);
        tvm->call(tvm->function("vm.builtin.tensor_cache.clear"), {}, step);
        item = tvm->function("ffi.ArrayGetItem");
        shape_of = tvm->function("ffi.Shape");
        return {folder->bytes, static_cast<uint64_t>(shape.parameters), vocabulary->size(), static_cast<int32_t>(shape.context)};
    }

    ContextFacts open(const Setup & setup) override {
        constexpr auto step = ExitCode::context;
        const Shape & shape = folder->shape;
        if (setup.context > shape.context) {
            throw Failure(step, "a context of " + std::to_string(setup.context) + " tokens is longer than the " +
                                    std::to_string(shape.context) + " that the model was trained for");
        }
        n_ctx = setup.context;
        const int64_t numbers = (n_ctx + block - 1) / block * block * shape.head;
        const uint64_t all = static_cast<uint64_t>(shape.layers * 2 * shape.kv_heads * numbers) * sizeof(float);
        keys_and_values.reset(std::calloc(1, all));
        if (keys_and_values == nullptr) {
            throw Failure(step, "no memory for a context of " + std::to_string(n_ctx) + " tokens: " + std::to_string(all) + " bytes");
        }
        cache = tvm->tensor(keys_and_values.get(), {shape.layers, 2, shape.kv_heads, numbers}, ElementType::float32, step);
        result.resize(static_cast<size_t>(shape.vocabulary));
        if (setup.profile_operators) {
            operators.start(*tvm, machine);
        }
        return {n_ctx, std::min(setup.batch, setup.context), all};
    }

    Json::Object effective() const override {
        return {{"version", MELT_RELEASE},
                {"threads", threads},
                {"spinning", spinning},
                {"cache_types", "f32/f32"},
                {"computed_in", "f32"},
                {"tokenizer", "llama.cpp " MELT_VOCABULARY}};
    }

    std::vector<Token> tokenize(const std::string & text, bool first) const override { return vocabulary->tokenize(text, first); }
    std::string piece(Token token) const override { return vocabulary->piece(token); }
    std::vector<Token> end_of_generation() const override { return vocabulary->end_of_generation(); }

    void decode(const Token * tokens, size_t size) override {
        constexpr auto step = ExitCode::decode;
        std::vector<Token> ids(tokens, tokens + size);
        const auto count = static_cast<int64_t>(size);
        if (count > n_ctx - past) {
            throw Failure(step, "no room for " + std::to_string(count) + " tokens after " + std::to_string(past));
        }
        for (const Token id : ids) {
            if (id < 0 || id >= folder->shape.vocabulary) {
                throw Failure(step, "there is no token " + std::to_string(id));
            }
        }
        const Value given = tvm->tensor(ids.data(), {1, count}, ElementType::int32, step);
        const Value position = tvm->call(shape_of, {int64_t{past}}, step);
        operators.begin();
        const Value both = tvm->call(count == 1 ? decode_one : prefill, {given, cache, position, weights}, step);
        const Value logits = tvm->call(item, {both, int64_t{0}}, step);
        std::memcpy(result.data(), logits.data(), result.size() * sizeof(float));
        operators.end();
        past += static_cast<int32_t>(count);
    }

    const float * logits() override { return result.data(); }
    std::vector<Operation> operations() override { return operators.take(); }

    void clear() override { past = 0; }

private:
    int64_t threads = 1;
    bool spinning = true;  // threads without work wait busily for a while
    std::unique_ptr<ModelFolder> folder;
    std::unique_ptr<Vocabulary> vocabulary;
    std::unique_ptr<Tvm> tvm;
    std::unique_ptr<void, void (*)(void *)> keys_and_values{nullptr, std::free};
    Operators operators;
    Value machine, prefill, decode_one, weights, item, shape_of, cache;
    int32_t n_ctx = 0;
    std::vector<float> result;
    int32_t past = 0;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<Mlc>(); }

}  // namespace melt
