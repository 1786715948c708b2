// llama.cpp as an engine of the runner. Everything in which its releases differ is in this file and in options.h.

#include "engine.h"

#include "failure.h"
#include "gguf.h"
#include "log.h"
#include "llama.h"
#include "operators.h"
#include "options.h"
#include "signals.h"
#include "threads.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

// The release's file under releases/ says which C API it has, by the month in which that API was current.
#if MELT_LLAMA_API != 202402 && MELT_LLAMA_API != 202610
#error "engine.cpp does not know this release's API"
#endif

namespace melt {
namespace {

bool keep_loading(float, void *) { return stop_signal() == 0; }

#if MELT_LLAMA_API >= 202610

llama_model * load(const std::string & path, llama_model_params params) {
    return llama_model_load_from_file(path.c_str(), params);
}

void choose_loading(const Fields & fields, Parameters & p) {
    if (p.mlock && (p.load == load_direct || p.load == load_auto)) {
        fields.wrong("mlock", "this release keeps in memory only what it maps or reads");
    }
    switch (p.load) {
        case load_mmap: p.model.load_mode = p.mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP; break;
        case load_read: p.model.load_mode = p.mlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE; break;
        case load_direct: p.model.load_mode = LLAMA_LOAD_MODE_DIRECT_IO; break;
        case load_auto: p.model.load_mode = LLAMA_LOAD_MODE_AUTO; break;
    }
    if (p.cpu_moe > 0) {
        place_experts(p);
    }
}

llama_context * create(llama_model * model, const llama_context_params & params) {
    return llama_init_from_model(model, params);
}

void release(llama_model * model) { llama_model_free(model); }
int32_t vocabulary_size(const llama_model * model) { return llama_vocab_n_tokens(llama_model_get_vocab(model)); }
int32_t trained_context(const llama_model * model) { return llama_model_n_ctx_train(model); }
bool wants_bos(const llama_model * model) { return llama_vocab_get_add_bos(llama_model_get_vocab(model)); }

int32_t tokenize_into(const llama_model * model, const std::string & text, std::vector<Token> & tokens, bool bos) {
    return llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), bos, true);
}

int32_t piece_into(const llama_model * model, Token token, std::string & buffer) {
    return llama_token_to_piece(llama_model_get_vocab(model), token, buffer.data(), static_cast<int32_t>(buffer.size()), 0,
                                false);
}

bool ends_generation(const llama_model * model, Token token) {
    return llama_vocab_is_eog(llama_model_get_vocab(model), token);
}

llama_batch batch_of(Token * tokens, int32_t count, int32_t) { return llama_batch_get_one(tokens, count); }
void keep_first(llama_context * context, int32_t count) {
    llama_memory_seq_rm(llama_get_memory(context), 0, count, -1);
}
// The other sequence holds what the first one does, or nothing.
void copy_first(llama_context * context, int32_t other, bool held) {
    llama_memory_seq_rm(llama_get_memory(context), other, -1, -1);
    if (held) {
        llama_memory_seq_cp(llama_get_memory(context), 0, other, -1, -1);
    }
}
void hold_sequences(llama_context_params & params, int32_t count) { params.n_seq_max = static_cast<uint32_t>(count); }
size_t save(llama_context * context, const char * path) { return llama_state_seq_save_file(context, path, 0, nullptr, 0); }
size_t load_saved(llama_context * context, const char * path, llama_token * tokens, size_t most, size_t & count) {
    return llama_state_seq_load_file(context, path, 0, tokens, most, &count);
}
// One step of ours is one step of the framework's, which by itself tells logical from physical batches.
void limit_step(llama_context_params & params) {
    params.n_ubatch = params.n_ubatch == 0 ? params.n_batch : std::min(params.n_ubatch, params.n_batch);
}
int32_t computed_step(const llama_context * context) { return static_cast<int32_t>(llama_n_ubatch(context)); }
// Asked for as `auto`, it is decided when the context is made, and told in the log alone.
std::string flash_attention(const llama_context_params & params, const Log & log) {
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO || log.flash_attention == "off") {
        return log.flash_attention;
    }
    return params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED ? "on" : "off";
}
int32_t threads_of(llama_context * context, const Parameters &) { return llama_n_threads(context); }
int32_t batch_threads_of(llama_context * context, const Parameters &) { return llama_n_threads_batch(context); }
bool keeps_all(const llama_model * model, const Parameters & p) { return p.context.swa_full || llama_model_n_swa(model) == 0; }

std::unique_ptr<Threads> start_threads(const Parameters & p) {
    return std::make_unique<Threads>(p.context.n_threads, p.context.n_threads_batch, p.pool);
}

std::string devices() {
    std::string list;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        list += std::string(list.empty() ? "" : ", ") + ggml_backend_dev_name(device) + " (" +
                ggml_backend_dev_description(device) + ")";
    }
    return list;
}
void synchronize(llama_context * context) { llama_synchronize(context); }
const float * last_logits(llama_context * context) { return llama_get_logits_ith(context, -1); }
bool continues_line(ggml_log_level level) { return level == GGML_LOG_LEVEL_CONT; }
void empty(llama_context * context) { llama_memory_clear(llama_get_memory(context), false); }

#else

llama_model * load(const std::string & path, llama_model_params params) {
    return llama_load_model_from_file(path.c_str(), params);
}

void choose_loading(const Fields &, Parameters & p) {
    p.model.use_mmap = p.load == load_mmap;
    p.model.use_mlock = p.mlock;
}

llama_context * create(llama_model * model, const llama_context_params & params) {
    return llama_new_context_with_model(model, params);
}

void release(llama_model * model) { llama_free_model(model); }
int32_t vocabulary_size(const llama_model * model) { return llama_n_vocab(model); }
int32_t trained_context(const llama_model * model) { return llama_n_ctx_train(model); }

bool wants_bos(const llama_model * model) {
    const int32_t said = llama_add_bos_token(model);  // -1: the model does not say
    return said == -1 ? llama_vocab_type(model) == LLAMA_VOCAB_TYPE_SPM : said == 1;
}

int32_t tokenize_into(const llama_model * model, const std::string & text, std::vector<Token> & tokens, bool bos) {
    return llama_tokenize(model, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), bos, true);
}

int32_t piece_into(const llama_model * model, Token token, std::string & buffer) {
    return llama_token_to_piece(model, token, buffer.data(), static_cast<int32_t>(buffer.size()));
}

// This release knows of one EOS token only. Chat models end their turns with others, which later releases find by
// their text; the same texts here, so that both releases stop at the same token.
bool ends_generation(const llama_model * model, Token token) {
    static const char * const texts[] = {"<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
                                         "<|endoftext|>", "</s>",       "<EOT>",   "<|end_of_text|>"};
    if (token == llama_token_eos(model)) {
        return true;
    }
    const std::string text = llama_token_get_text(model, token);
    return llama_token_get_type(model, token) == LLAMA_TOKEN_TYPE_CONTROL &&
           std::find(std::begin(texts), std::end(texts), text) != std::end(texts);
}

llama_batch batch_of(Token * tokens, int32_t count, int32_t past) { return llama_batch_get_one(tokens, count, past, 0); }
void keep_first(llama_context * context, int32_t count) { llama_kv_cache_seq_rm(context, 0, count, -1); }
void copy_first(llama_context * context, int32_t other, bool held) {
    llama_kv_cache_seq_rm(context, other, -1, -1);
    if (held) {
        llama_kv_cache_seq_cp(context, 0, other, -1, -1);
    }
}
void hold_sequences(llama_context_params &, int32_t) {}
size_t save(llama_context * context, const char * path) {
    return llama_save_session_file(context, path, nullptr, 0) ? 1 : 0;
}
size_t load_saved(llama_context * context, const char * path, llama_token * tokens, size_t most, size_t & count) {
    return llama_load_session_file(context, path, tokens, most, &count) ? 1 : 0;
}
void limit_step(llama_context_params &) {}
int32_t computed_step(const llama_context * context) { return static_cast<int32_t>(llama_n_batch(context)); }
std::string flash_attention(const llama_context_params &, const Log &) { return "off"; }  // this release has none
int32_t threads_of(llama_context *, const Parameters & p) { return static_cast<int32_t>(p.context.n_threads); }
int32_t batch_threads_of(llama_context *, const Parameters & p) { return static_cast<int32_t>(p.context.n_threads_batch); }
bool keeps_all(const llama_model *, const Parameters &) { return true; }
std::unique_ptr<Threads> start_threads(const Parameters &) { return std::make_unique<Threads>(); }

std::string devices() {
    std::string list;
    for (size_t i = 0; i < ggml_backend_reg_get_count(); ++i) {
        list += (list.empty() ? "" : ", ") + std::string(ggml_backend_reg_get_name(i));
    }
    return list;
}
void synchronize(llama_context *) {}
const float * last_logits(llama_context * context) { return llama_get_logits(context); }
bool continues_line(ggml_log_level) { return false; }
void empty(llama_context * context) { llama_kv_cache_clear(context); }

#endif

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
    }

    bool profiles_operators() const override { return true; }

    void check(const std::string & path) override { bytes = check_gguf(path); }

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
        threads->add_to(found);
        found.emplace_back("locked_bytes", locked_bytes());
        found.emplace_back("devices", devices());
        found.emplace_back("cpu_features", features());
        log.add_to(found);
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
        keep_first(context, count);
        past = count;
    }

    bool holds_sequences() const override { return true; }

    void fork(int32_t count) override {
        for (int32_t other = 1; other < sequences; ++other) {
            copy_first(context, other, other < count);
        }
    }

    void decode_abreast(const std::vector<Token> & tokens) override {
        llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
        batch.n_tokens = static_cast<int32_t>(tokens.size());
        for (size_t i = 0; i < tokens.size(); ++i) {
            batch.token[i] = tokens[i];
            batch.pos[i] = past;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = static_cast<llama_seq_id>(i);
            batch.logits[i] = 1;
        }
        const int32_t status = llama_decode(context, batch);
        llama_batch_free(batch);
        if (status != 0) {
            throw Failure(ExitCode::decode, "decoding a token of each of " + std::to_string(tokens.size()) +
                                                " sequences failed with status " + std::to_string(status));
        }
        synchronize(context);
        ++past;
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
    Parameters parameters;
    std::unique_ptr<Threads> threads;
    Operators operators;
    Log log;
    llama_context * context = nullptr;
    int32_t past = 0;
    int32_t saved_past = 0;
    int32_t sequences = 1;
};

}  // namespace

std::unique_ptr<Engine> make_engine() { return std::make_unique<LlamaCpp>(); }

}  // namespace melt
