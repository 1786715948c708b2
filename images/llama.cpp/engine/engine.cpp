// llama.cpp as an engine of the runner.

#include "engine.h"

#include "failure.h"
#include "gguf.h"
#include "log.h"
#include "llama.h"
#include "operators.h"
#include "options.h"
#include "placement.h"
#include "release.h"
#include "signals.h"
#include "threads.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

namespace melt {
namespace {

constexpr double most_scale = 1000;

bool keep_loading(float, void *) { return stop_signal() == 0; }

// Two thousand lines about graphs help nobody, and a full pipe would make the framework wait for its reader.
void say(ggml_log_level level, const char * text, void * log) {
    static bool worth_saying = true;
    worth_saying = continues_line(level) ? worth_saying : level != GGML_LOG_LEVEL_DEBUG;
    if (worth_saying) {
        static_cast<Log *>(log)->read(text);
        std::fputs(text, stderr);
    }
}

std::optional<std::string> metadata(const llama_model * model, const std::string & key) {
    std::string value(4096, '\0');
    const int32_t length = llama_model_meta_val_str(model, key.c_str(), value.data(), value.size());
    if (length < 0) {
        return std::nullopt;
    }
    value.resize(std::min(static_cast<size_t>(length), value.size() - 1));
    return value;
}

// Features of the CPU that the framework was built for and uses, as it calls them.
std::string features() {
    std::istringstream words(llama_print_system_info());
    std::string list, before, word;
    for (std::string last; words >> word; before = last, last = word) {
        if (word == "1" && last == "=") {
            list += (list.empty() ? "" : " ") + before;
        }
    }
    return list;
}

// Bytes of keys and values for `n_ctx` positions in every layer; nothing where the model has no such cache.
std::optional<uint64_t> kv_bytes(const llama_model * model, int32_t n_ctx, ggml_type of_keys, ggml_type of_values) {
    const std::string arch = metadata(model, "general.architecture").value_or("");
    const auto number = [&](const std::string & key) { return metadata(model, arch + "." + key); };
    const auto layers = number("block_count"), heads = number("attention.head_count"), width = number("embedding_length");
    if (!layers || !heads || !width) {
        return std::nullopt;
    }
    // One number for all layers, or a list with one for each.
    std::istringstream per_layer(number("attention.head_count_kv").value_or(*heads));
    const bool is_list = per_layer.peek() == '[';
    uint64_t kv_heads = 0;
    for (uint64_t count = 0; (per_layer.ignore(is_list ? 1 : 0), per_layer >> count);) {
        kv_heads += is_list ? count : count * std::stoull(*layers);
    }
    const auto size_of_head = [&](const std::string & key) {
        const auto said = number(key);
        return said ? std::stoull(*said) : std::stoull(*width) / std::stoull(*heads);
    };
    const auto bytes = [&](const std::string & key, ggml_type type) {
        return size_of_head(key) * ggml_type_size(type) / static_cast<uint64_t>(ggml_blck_size(type));
    };
    const uint64_t of_head = bytes("attention.key_length", of_keys) + bytes("attention.value_length", of_values);
    return kv_heads * of_head * static_cast<uint64_t>(n_ctx);
}

// An adapter as a request names it.
struct Lora {
    std::string path;
    double scale;
};

class LlamaCpp : public Engine {
public:
    ~LlamaCpp() override {
        if (context != nullptr) {
            llama_free(context);
        }
        if (model != nullptr) {
            release(model);
        }
        llama_log_set(nullptr, nullptr);  // another engine's may be the last
    }

    Identity identity() const override { return {"llama.cpp", MELT_COMMIT, MELT_ISA, llama_print_system_info()}; }

    void read_options(Fields & fields) override {
        for (const Option & option : all_options()) {
            option.take(fields, parameters);
        }
        choose_loading(fields, parameters);
        if (const Json * node = fields.optional("lora")) {
            if (!takes_adapters) {
                fields.wrong("lora", "this release reads no adapters in GGUF format");
            }
            Fields given(*node, "lora");
            lora = {given.text("model"), given.number("scale", -most_scale, most_scale)};
            given.optional("digest");  // for the record alone
            given.finish();
        }
    }

    bool profiles_operators() const override { return true; }

    void check(const std::string & path) override {
        bytes = check_gguf(path);
        if (lora) {
            check_gguf(lora->path);
        }
    }

    ModelFacts load(const std::string & path) override {
        llama_log_set(say, &log);
        llama_backend_init();
        // llama.cpp itself would compute on the CPU, and say so among other things.
        if (parameters.model.n_gpu_layers != 0 && !llama_supports_gpu_offload()) {
            throw Failure(ExitCode::model, "no GPU can be used for gpu_layers; stderr says why, if there is a driver");
        }
        if (parameters.numa != GGML_NUMA_STRATEGY_DISABLED) {
            llama_numa_init(parameters.numa);
        }
        parameters.model.progress_callback = keep_loading;
        model = melt::load(path, parameters.model);
        throw_if_stopped();
        if (model == nullptr) {
            throw Failure(ExitCode::model, "model " + path + " cannot be loaded; stderr says why");
        }
        if (lora && (adapter = load_adapter(model, lora->path)) == nullptr) {
            throw Failure(ExitCode::model, "adapter " + lora->path + " cannot be added to model " + path + "; stderr says why");
        }
        return {bytes, llama_model_n_params(model), vocabulary_size(model), trained_context(model)};
    }

    ContextFacts open(const Setup & setup) override {
        llama_context_params & params = parameters.context;
        sequences = setup.sequences;
        params.n_ctx = static_cast<uint32_t>(setup.context * sequences);
        hold_sequences(params, sequences);
        params.n_batch = static_cast<uint32_t>(std::min(setup.batch, setup.context));
        limit_step(params);
        params.n_threads = static_cast<decltype(params.n_threads)>(setup.threads);
        params.n_threads_batch = params.n_threads_batch == 0 ? params.n_threads : params.n_threads_batch;
        if (setup.profile_operators) {
            params.cb_eval = Operators::callback;
            params.cb_eval_user_data = &operators;
        }
        threads = start_threads(parameters);
        context = create(model, params);
        if (context == nullptr) {
            throw Failure(ExitCode::context,
                          "a context of " + std::to_string(setup.context) + " tokens cannot be created; stderr says why");
        }
        if (adapter != nullptr) {
            apply(context, adapter, static_cast<float>(lora->scale));
        }
        placed = placement(context);
        threads->attach(context);
        const auto n_ctx = static_cast<int32_t>(llama_n_ctx(context));
        const auto cache = keeps_all(model, parameters) ? kv_bytes(model, n_ctx, params.type_k, params.type_v) : std::nullopt;
        return {n_ctx / sequences, static_cast<int32_t>(llama_n_batch(context)), cache};
    }

    // By the names of the options, where they are not older: what the API, the log or the kernel says, else what was passed.
    Json::Object effective() const override {
        const llama_context_params & params = parameters.context;
        const bool gpu = llama_supports_gpu_offload();
        Json::Object found = {{"flash_attention", flash_attention(params, log)},
                              {"n_ubatch", computed_step(context)},
                              {"cache_types", std::string(ggml_type_name(params.type_k)) + "/" + ggml_type_name(params.type_v)},
                              {"threads", threads_of(context, parameters)},
                              {"threads_batch", batch_threads_of(context, parameters)}};
        for (const Option & option : all_options()) {
            if (option.tell == nullptr || (option.of_gpu && !gpu)) {
                continue;
            }
            Json value = option.tell(parameters);
            if (const std::optional<Json> said = log.value(option.name)) {
                value = *said;
            } else if (value.as<std::nullptr_t>() != nullptr) {
                value = "model";
            }
            found.emplace_back(option.name, value);
        }
        if (adapter != nullptr) {
            found.emplace_back("lora_scale", lora->scale);
            found.emplace_back("lora_alpha", alpha_of(adapter));
        }
        threads->add_to(found);
        found.emplace_back("locked_bytes", locked_bytes());
        found.emplace_back("devices", devices());
        found.emplace_back("cpu_features", features());
        log.add_to(found);
        if (placed.as<std::nullptr_t>() == nullptr) {
            found.emplace_back("placement", placed);
        }
        if (const std::string variables = engine_variables(); !variables.empty()) {
            found.emplace_back("environment", variables);
        }
        return found;
    }

    std::vector<Token> tokenize(const std::string & text, bool first) const override {
        // Never more tokens than bytes, but for what a tokenizer puts in front.
        std::vector<Token> tokens(text.size() + 8);
        const int32_t count = tokenize_into(model, text, tokens, first && wants_bos(model));
        if (count < 0) {
            throw Failure(ExitCode::decode, "a text of " + std::to_string(text.size()) + " bytes cannot be tokenized");
        }
        tokens.resize(static_cast<size_t>(count));
        return tokens;
    }

    std::string piece(Token token) const override {
        std::string text(64, '\0');
        int32_t length = piece_into(model, token, text);
        if (length < 0) {
            text.resize(static_cast<size_t>(-length));
            length = piece_into(model, token, text);
        }
        text.resize(static_cast<size_t>(std::max(length, 0)));
        return text;
    }

    std::vector<Token> end_of_generation() const override {
        std::vector<Token> ends;
        for (Token token = 0; token < vocabulary_size(model); ++token) {
            if (ends_generation(model, token)) {
                ends.push_back(token);
            }
        }
        return ends;
    }

    void decode(const Token * tokens, size_t size) override { decode(tokens, size, nullptr); }

    bool rewinds() const override { return true; }

    void decode_each(const Token * tokens, size_t size) override {
        std::vector<int8_t> each(size, 1);
        decode(tokens, size, each.data());
        synchronize(context);
    }

    const float * logits_after(size_t i) override { return llama_get_logits_ith(context, static_cast<int32_t>(i)); }

    void rewind(int32_t count) override {
        if (!keep_first(context, count)) {
            throw Failure(ExitCode::decode, "nothing can be taken out of the context of such a model");
        }
        past = count;
    }

    bool holds_sequences() const override { return true; }

    void fork(int32_t count) override {
        for (int32_t other = 1; other < sequences; ++other) {
            copy_first(context, other, other < count);
        }
    }

    void decode_abreast(const std::vector<Token> & tokens) override {
        decode_side_by_side(tokens.data(), 1, static_cast<int32_t>(tokens.size()), 1);
    }

    void decode_alike(const Token * tokens, size_t count, int32_t sequences) override {
        decode_side_by_side(tokens, static_cast<int32_t>(count), sequences, 0);
    }

    bool saves_context() const override { return true; }

    uint64_t save(const std::string & path) override {
        std::error_code error;
        saved_past = past;
        const bool done = melt::save(context, path.c_str()) != 0;
        const auto size = std::filesystem::file_size(path, error);
        if (!done || error) {
            throw Failure(ExitCode::context, "the context cannot be written to " + path);
        }
        return size;
    }

    void restore(const std::string & path) override {
        llama_token none = 0;
        size_t count = 0;
        if (load_saved(context, path.c_str(), &none, 1, count) == 0) {
            throw Failure(ExitCode::context, "the context cannot be read from " + path);
        }
        past = saved_past;
    }

    // `count` tokens of each sequence, the i-th one's from tokens[i * apart] on, with logits after its last.
    void decode_side_by_side(const Token * tokens, int32_t count, int32_t sequences, int32_t apart) {
        llama_batch batch = llama_batch_init(count * sequences, 0, 1);
        for (int32_t sequence = 0; sequence < sequences; ++sequence) {
            for (int32_t i = 0; i < count; ++i) {
                const int32_t at = batch.n_tokens++;
                batch.token[at] = tokens[sequence * apart + i];
                batch.pos[at] = past + i;
                batch.n_seq_id[at] = 1;
                batch.seq_id[at][0] = sequence;
                batch.logits[at] = i + 1 == count;
            }
        }
        const int32_t status = llama_decode(context, batch);
        llama_batch_free(batch);
        if (status != 0) {
            throw Failure(ExitCode::decode, "decoding " + std::to_string(count) + " tokens of each of " +
                                                std::to_string(sequences) + " sequences failed with status " +
                                                std::to_string(status));
        }
        synchronize(context);
        past += count;
    }

    void decode(const Token * tokens, size_t size, int8_t * each) {
        std::vector<Token> copy(tokens, tokens + size);
        const auto count = static_cast<int32_t>(size);
        llama_batch batch = batch_of(copy.data(), count, past);
        batch.logits = each;
        const int32_t status = llama_decode(context, batch);
        if (status != 0) {
            throw Failure(ExitCode::decode, "decoding " + std::to_string(count) + " tokens after " + std::to_string(past) +
                                                " failed with status " + std::to_string(status));
        }
        past += count;
    }

    const float * logits() override {
        synchronize(context);
        return last_logits(context);
    }

    std::vector<Operation> operations() override { return operators.take(); }

    void clear() override {
        empty(context);
        past = 0;
    }

private:
    uint64_t bytes = 0;
    llama_model * model = nullptr;
    std::optional<Lora> lora;
    llama_adapter_lora * adapter = nullptr;  // goes with the model
    Parameters parameters;
    std::unique_ptr<Threads> threads;
    Operators operators;
    Json placed;
    Log log;
    llama_context * context = nullptr;
    int32_t past = 0;
    int32_t saved_past = 0;
    int32_t sequences = 1;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<LlamaCpp>(); }

}  // namespace melt
