// A model that MLC's compiler compiled, as an engine of the runner: TVM's virtual machine calls its operators, and keys and values
// stay in one buffer that grows in place; or on a device, where they are TVM's.

#include "converted.h"
#include "gpu.h"
#include "operators.h"
#include "tvm.h"
#include "weights.h"

#include <cstring>
#include <limits>

namespace melt {
namespace {

constexpr int64_t cpu = 1, pooled = 2;  // a kind of device, and of memory
constexpr int64_t block = 16;           // positions that lie together in the cache of keys, as the compiler has it

class Mlc : public ConvertedEngine {
public:
    Identity identity() const override { return {"mlc", MELT_COMMIT, MELT_ISA, "TVM " MELT_RELEASE}; }

    bool profiles_operators() const override { return !on_gpu; }

    // TVM reads these once, before its threads start; where those may run is the target's affair.
    void read_options(Fields & fields) override {
        threads = fields.integer("threads", 1, std::numeric_limits<int16_t>::max());
        spinning = fields.boolean_or("spinning", true);
        on_gpu = fields.boolean_or("opencl", false);
        setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
        setenv("TVM_BIND_THREADS", "0", 1);
        if (!spinning) {
            setenv("TVM_THREAD_POOL_SPIN_COUNT", "0", 1);
        }
    }

    void check(const std::string & model) override {
        ConvertedEngine::check(model);
        names = weights_of(*folder);
    }

    Json::Object effective() const override {
        Json::Object facts{{"version", MELT_RELEASE},
                           {"threads", threads},
                           {"spinning", spinning},
                           {"cache_types", "f32/f32"},
                           {"computed_in", "f32"},
                           {"tokenizer", "llama.cpp " MELT_VOCABULARY}};
        if (gpu) {
            gpu->describe(facts);
        }
        return facts;
    }

    void clear() override {
        ConvertedEngine::clear();
        if (gpu) {
            gpu->clear(ExitCode::decode);
        }
    }

    const float * logits() override { return result.data(); }
    std::vector<Operation> operations() override { return operators.take(); }

protected:
    std::initializer_list<const char *> files() const override { return {}; }

    void load_code(const std::string & model) override {
        constexpr auto step = ExitCode::model;
        tvm = std::make_unique<Tvm>();
        if (on_gpu) {
            gpu = std::make_unique<Gpu>(*tvm, threads);
        }
        const int64_t device = on_gpu ? Gpu::kind : cpu;
        const Value code = tvm->call(tvm->function("ffi.ModuleLoadFromFile"), {(model + "/model.so").c_str()}, step);
        machine = tvm->call(tvm->method(code, "vm_load_executable"), {}, step);
        tvm->call(tvm->method(machine, "vm_initialization"), {device, int64_t{0}, pooled, cpu, int64_t{0}, pooled}, step);
        prefill = tvm->method(machine, "prefill");
        decode_one = tvm->method(machine, "decode");
        tvm->call(tvm->function("vm.builtin.tensor_cache.load"), {model.c_str(), device, int64_t{0}}, step);
        std::vector<Value> arguments;
        for (const std::string & name : names) {
            arguments.emplace_back(name.c_str());
        }
        weights = tvm->call(tvm->function("vm.builtin.param_array_from_cache_by_name_unpacked"), arguments, step);
        tvm->call(tvm->function("vm.builtin.tensor_cache.clear"), {}, step);
        item = tvm->function("ffi.ArrayGetItem");
        shape_of = tvm->function("ffi.Shape");
    }

    std::optional<uint64_t> open_cache(const Setup & setup) override {
        const int64_t numbers = (n_ctx + block - 1) / block * block * folder->head;
        const uint64_t all = static_cast<uint64_t>(folder->layers * 2 * folder->kv_heads * numbers) * sizeof(float);
        result.resize(static_cast<size_t>(folder->vocabulary));
        if (gpu) {
            gpu->open(machine, weights, setup);
            return all;
        }
        cache = tvm->tensor(reserve(all), {folder->layers, 2, folder->kv_heads, numbers}, ElementType::float32, ExitCode::context);
        if (setup.profile_operators) {
            operators.start(*tvm, machine);
        }
        return all;
    }

    void compute(const Token * tokens, size_t count) override {
        constexpr auto step = ExitCode::decode;
        std::vector<Token> ids(tokens, tokens + count);
        const Value & function = count == 1 ? decode_one : prefill;
        if (gpu) {
            const Value logits = gpu->compute(function, ids, weights, step);
            std::memcpy(result.data(), logits.data(), result.size() * sizeof(float));
            return;
        }
        const Value given = tvm->tensor(ids.data(), {1, static_cast<int64_t>(count)}, ElementType::int32, step);
        const Value position = tvm->call(shape_of, {int64_t{past}}, step);
        operators.begin();
        const Value both = tvm->call(function, {given, cache, position, weights}, step);
        const Value logits = tvm->call(item, {both, int64_t{0}}, step);
        std::memcpy(result.data(), logits.data(), result.size() * sizeof(float));
        operators.end();
    }

private:
    int64_t threads = 1;
    bool spinning = true;  // threads without work wait busily for a while
    std::vector<std::string> names;
    bool on_gpu = false;
    std::unique_ptr<Tvm> tvm;
    std::unique_ptr<Gpu> gpu;
    Operators operators;
    Value machine, prefill, decode_one, weights, item, shape_of, cache;
    std::vector<float> result;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<Mlc>(); }

}  // namespace melt
