// ONNX Runtime as an engine of the runner: a graph of one model, whose keys and values stay in one buffer that grows in place.

#include "engine.h"

#include "converted.h"
#include "failure.h"
#include "operators.h"
#include "ort.h"

#include <deque>
#include <limits>
#include <map>

namespace melt {
namespace {

constexpr int errors_alone = 3, arena = 1, main_memory = 0;  // what is said on stderr; an allocator's kind, and its place
constexpr const char * graph = "model.onnx";
constexpr std::initializer_list<const char *> own_files = {graph, "weights.bin"};

const std::map<std::string, int> optimizations = {{"off", 0}, {"basic", 1}, {"extended", 2}, {"all", 99}};

// A tensor over memory of ours, released with it.
class Tensor {
public:
    Tensor(const Ort & ort, const OrtMemoryInfo * memory, void * data, size_t size, const std::vector<int64_t> & shape,
           ElementType type, ExitCode code)
        : ort(&ort) {
        ort.check(ort.create_tensor_of(memory, data, size, shape.data(), shape.size(), type, &value), code);
    }
    ~Tensor() {
        if (value != nullptr) {
            ort->release_value(value);
        }
    }
    Tensor(Tensor && other) noexcept : ort(other.ort), value(other.value) { other.value = nullptr; }
    Tensor(const Tensor &) = delete;
    Tensor & operator=(const Tensor &) = delete;

    OrtValue * get() const { return value; }

private:
    const Ort * ort;
    OrtValue * value = nullptr;
};

class OnnxRuntime : public ConvertedEngine {
public:
    ~OnnxRuntime() override {
        cache.clear();
        if (memory != nullptr) {
            ort.release_memory_info(memory);
        }
        if (session != nullptr) {
            ort.release_session(session);
        }
        if (env != nullptr) {
            ort.release_env(env);
        }
    }

    Identity identity() const override { return {"onnxruntime", MELT_COMMIT, MELT_ISA, ort.build_info()}; }

    // Threads belong to a session, which is made when the weights are loaded: they are read here before others read them.
    void read_options(Fields & fields) override {
        threads = static_cast<int>(fields.integer("threads", 1, std::numeric_limits<int16_t>::max()));
        spinning = fields.boolean_or("spinning", true);
        const Json * level = fields.optional("graph_optimization");
        const std::string name = level == nullptr ? "all" : fields.to_text("graph_optimization", *level);
        optimization = optimizations.find(name);
        if (optimization == optimizations.end()) {
            fields.wrong("graph_optimization", "expected off, basic, extended or all, got " + shown(*level));
        }
    }

    Json::Object effective() const override {
        return {{"version", ort.version},
                {"graph_optimization", optimization->first},
                {"spinning", spinning},
                {"cache_types", "f32/f32"},
                {"tokenizer", "llama.cpp " MELT_VOCABULARY}};
    }

    const float * logits() override { return result.data(); }
    std::vector<Operation> operations() override { return operators.take(); }

protected:
    std::initializer_list<const char *> files() const override { return own_files; }

    void load_code(const std::string & model) override {
        constexpr auto step = ExitCode::model;
        ort.check(ort.create_env(errors_alone, "melt-runner", &env), step);
        OrtSessionOptions * options = nullptr;
        ort.check(ort.create_session_options(&options), step);
        const std::unique_ptr<OrtSessionOptions, void (*)(OrtSessionOptions *)> owner(options, ort.release_session_options);
        ort.check(ort.set_intra_op_threads(options, threads), step);
        ort.check(ort.set_inter_op_threads(options, 1), step);
        ort.check(ort.set_graph_optimization(options, optimization->second), step);
        ort.check(ort.add_config(options, "session.intra_op.allow_spinning", spinning ? "1" : "0"), step);
        ort.check(ort.create_session(env, (model + "/" + graph).c_str(), options, &session), step);
    }

    std::optional<uint64_t> open_cache(const Setup & setup) override {
        constexpr auto step = ExitCode::context;
        const std::vector<int64_t> sizes = {1, folder->kv_heads, n_ctx, folder->head};
        const size_t size = static_cast<size_t>(folder->kv_heads * n_ctx * folder->head) * sizeof(float);
        const uint64_t all = size * 2 * static_cast<uint64_t>(folder->layers);
        char * place = reserve(all);
        ort.check(ort.create_memory_info(arena, main_memory, &memory), step);
        for (int64_t i = 0; i < 2 * folder->layers; ++i, place += size) {
            const std::string name = std::to_string(i / 2) + (i % 2 == 0 ? ".key" : ".value");
            inputs.push_back(names.emplace_back("past." + name).c_str());
            outputs.push_back(names.emplace_back("present." + name).c_str());
            cache.emplace_back(ort, memory, place, size, sizes, ElementType::floats, step);
        }
        result.resize(static_cast<size_t>(folder->vocabulary));
        if (setup.profile_operators) {
            operators.start();
        }
        return all;
    }

    void compute(const Token * tokens, size_t size) override {
        constexpr auto step = ExitCode::decode;
        std::vector<int64_t> ids(tokens, tokens + size);
        const auto count = static_cast<int64_t>(size);
        int32_t length = past + static_cast<int32_t>(count), last = length - 1;
        const Tensor given[] = {
            Tensor(ort, memory, ids.data(), size * sizeof(int64_t), {1, count}, ElementType::int64, step),
            Tensor(ort, memory, &last, sizeof last, {1}, ElementType::int32, step),
            Tensor(ort, memory, &length, sizeof length, {}, ElementType::int32, step),
        };
        const Tensor logits(ort, memory, result.data(), result.size() * sizeof(float), {1, 1, folder->vocabulary},
                            ElementType::floats, step);
        std::vector<const OrtValue *> input_values;
        std::vector<OrtValue *> output_values = {logits.get()};
        for (const Tensor & tensor : given) {
            input_values.push_back(tensor.get());
        }
        // Past and present are the same memory: the operator for attention then writes what is new behind what is there.
        for (const Tensor & tensor : cache) {
            input_values.push_back(tensor.get());
            output_values.push_back(tensor.get());
        }
        ort.check(ort.run(session, operators.next(), inputs.data(), input_values.data(), input_values.size(), outputs.data(),
                          output_values.size(), output_values.data()),
                  step);
    }

private:
    const Ort ort{"libonnxruntime.so"};
    Operators operators{ort};
    int threads = 1;
    bool spinning = true;  // threads without work wait busily for a while
    std::map<std::string, int>::const_iterator optimization;
    OrtEnv * env = nullptr;
    OrtSession * session = nullptr;
    OrtMemoryInfo * memory = nullptr;
    std::vector<Tensor> cache;  // of each layer keys, then values
    std::deque<std::string> names;
    std::vector<const char *> inputs = {"tokens", "last", "length"}, outputs = {"logits"};
    std::vector<float> result;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<OnnxRuntime>(); }

}  // namespace melt
