// OpenVINO as an engine of the runner: a graph of one model, whose keys and values are a request's own state.

#include "engine.h"

#include "clock.h"
#include "converted.h"
#include "failure.h"
#include "openvino.h"
#include "operators.h"
#include "signals.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace melt {
namespace {

constexpr const char * graph = "model.xml";
constexpr const char * weights = "model.bin";
constexpr std::initializer_list<const char *> own_files = {graph, weights};
enum Input : size_t { tokens_given, positions_given, length_given, sequence_given };

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T *)>;

class OpenVinoEngine : public ConvertedEngine {
public:
    Identity identity() const override { return {"openvino", MELT_COMMIT, MELT_ISA, api.version}; }

    // All this belongs to a compiled model, which is made when the weights are loaded: fields of others are read here before they do.
    void read_options(Fields & fields) override {
        threads = fields.integer("threads", 1, std::numeric_limits<int16_t>::max());
        precision = choice(fields, "inference_precision", "f32", {"f32", "bf16", "f16"});
        cache_precision = choice(fields, "kv_cache_precision", "f16", {"f32", "f16", "u8"});
        group = fields.integer_or("dynamic_quantization_group_size", 0, 1 << 20, 32);
        const Json * profile = fields.optional("profile");
        const std::string * name = profile == nullptr ? nullptr : profile->as<std::string>();
        profiled = name != nullptr && *name == "operators";
    }

    Json::Object effective() const override {
        const auto said = [&](const char * key) { return api.property(compiled.get(), key); };
        return {{"version", api.version},
                {"inference_precision", said("INFERENCE_PRECISION_HINT")},
                {"cache_types", said("KEY_CACHE_PRECISION") + "/" + said("VALUE_CACHE_PRECISION")},
                {"dynamic_quantization_group_size", std::atoll(said("DYNAMIC_QUANTIZATION_GROUP_SIZE").c_str())},
                {"threads", std::atoll(said("INFERENCE_NUM_THREADS").c_str())},
                {"num_streams", std::atoll(said("NUM_STREAMS").c_str())},
                {"enable_cpu_pinning", said("ENABLE_CPU_PINNING") == "YES"},
                {"runtime_requirements", said("RUNTIME_REQUIREMENTS")},
                {"tokenizer", "llama.cpp " MELT_VOCABULARY}};
    }

    const float * logits() override {
        void * data = nullptr;
        api.check(api.get_data(output.get(), &data), ExitCode::decode);
        return static_cast<const float *>(data);
    }

    std::vector<Operation> operations() override { return operators.take(); }

    // The C API cannot empty a request's state, so there is a new one; what was compiled stays.
    void clear() override {
        output.reset();
        request.reset();
        request = made<ov_infer_request>(api.release_request, ExitCode::decode, [&](ov_infer_request ** place) {
            return api.create_request(compiled.get(), place);
        });
        past = 0;
    }

protected:
    std::initializer_list<const char *> files() const override { return own_files; }

    void load_code(const std::string & model) override {
        constexpr auto step = ExitCode::model;
        core = made<ov_core>(api.release_core, step, api.create_core);
        const auto source = made<ov_model>(api.release_model, step, [&](ov_model ** place) {
            return api.read_model(core.get(), (model + "/" + graph).c_str(), (model + "/" + weights).c_str(), place);
        });
        throw_if_stopped();
        compile(source.get());
        throw_if_stopped();
        // Matrices are packed for the CPU when a call needs them first: that is part of loading them.
        const Token first = 0;
        clear();
        compute(&first, 1, step);
        size_t size = 0;
        api.check(api.get_byte_size(output.get(), &size), step);
        if (size != static_cast<size_t>(folder->vocabulary) * sizeof(float)) {
            throw Failure(step, "the graph gives " + std::to_string(size) + " bytes of logits for " +
                                    std::to_string(folder->vocabulary) + " tokens");
        }
        operators.take();
        clear();
    }

    // Keys and values grow with what is in them: no size of theirs is known before.
    std::optional<uint64_t> open_cache(const Setup &) override { return std::nullopt; }

    void compute(const Token * tokens, size_t count) override { compute(tokens, count, ExitCode::decode); }

private:
    static std::string choice(Fields & fields, const std::string & name, const char * usual, std::vector<std::string> known) {
        const Json * value = fields.optional(name);
        if (value == nullptr) {
            return usual;
        }
        const std::string * text = value->as<std::string>();
        if (text == nullptr || std::find(known.begin(), known.end(), *text) == known.end()) {
            fields.wrong(name, "expected " + known[0] + ", " + known[1] + " or " + known[2] + ", got " + shown(*value));
        }
        return *text;
    }

    template <typename T, typename Make>
    Owned<T> made(void (*release)(T *), ExitCode code, const Make & make) const {
        T * found = nullptr;
        api.check(make(&found), code);
        return Owned<T>(found, release);
    }

    // Threads are not bound to CPUs, for which ones are used is the target's to say.
    void compile(const ov_model * source) {
        const std::string threads_text = std::to_string(threads), group_text = std::to_string(group);
        const std::vector<Property> properties = {
            {"PERFORMANCE_HINT", "LATENCY"},
            {"NUM_STREAMS", "1"},
            {"INFERENCE_NUM_THREADS", threads_text.c_str()},
            {"ENABLE_CPU_PINNING", "NO"},
            {"ENABLE_HYPER_THREADING", "YES"},
            {"INFERENCE_PRECISION_HINT", precision.c_str()},
            {"KV_CACHE_PRECISION", cache_precision.c_str()},
            {"DYNAMIC_QUANTIZATION_GROUP_SIZE", group_text.c_str()},
            {"PERF_COUNT", profiled ? "YES" : "NO"},
        };
        compiled = made<ov_compiled_model>(api.release_compiled, ExitCode::model, [&](ov_compiled_model ** place) {
            return api.compile(core.get(), source, "CPU", properties.size(), properties.data(), place);
        });
        const std::string got = api.property(compiled.get(), "INFERENCE_PRECISION_HINT");
        if (got != precision) {
            throw Failure(ExitCode::model, "this CPU computes with " + got + ", not with " + precision);
        }
    }

    void compute(const Token * tokens, size_t count, ExitCode code) {
        const int64_t begin = profiled ? monotonic_ns() : 0;
        std::vector<Token> ids(tokens, tokens + count);
        std::vector<int32_t> positions(count);
        for (size_t i = 0; i < count; ++i) {
            positions[i] = past + static_cast<int32_t>(i);
        }
        int32_t length = past + static_cast<int32_t>(count), sequence = 0;
        set_input(tokens_given, ids.data(), {1, static_cast<int64_t>(count)}, code);
        set_input(positions_given, positions.data(), {1, static_cast<int64_t>(count)}, code);
        set_input(length_given, &length, {1}, code);
        set_input(sequence_given, &sequence, {1}, code);
        api.check(api.infer(request.get()), code);
        output = made<ov_tensor>(api.release_tensor, code, [&](ov_tensor ** place) {
            return api.get_output(request.get(), 0, place);
        });
        if (profiled) {
            operators.add(request.get(), begin);
        }
    }

    // The request keeps the tensor, and the memory is ours for the call.
    void set_input(Input place, int32_t * data, std::vector<int64_t> sizes, ExitCode code) const {
        const auto tensor = made<ov_tensor>(api.release_tensor, code, [&](ov_tensor ** made) {
            return api.create_tensor_of(ElementType::int32, {static_cast<int64_t>(sizes.size()), sizes.data()}, data, made);
        });
        api.check(api.set_input(request.get(), place, tensor.get()), code);
    }

    const OpenVino api{"libopenvino_c.so.2641"};
    Operators operators{api};
    int64_t threads = 1, group = 0;
    std::string precision, cache_precision;
    bool profiled = false;
    Owned<ov_core> core{nullptr, nullptr};
    Owned<ov_compiled_model> compiled{nullptr, nullptr};
    Owned<ov_infer_request> request{nullptr, nullptr};
    Owned<ov_tensor> output{nullptr, nullptr};
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<OpenVinoEngine>(); }

}  // namespace melt
