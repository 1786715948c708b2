// llama.cpp's API as engine.cpp calls it: everything in which its releases differ is in this file and in options.h.
#pragma once

#include "failure.h"
#include "fields.h"
#include "log.h"
#include "llama.h"
#include "options.h"
#include "threads.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

// The release's file under releases/ says which C API it has, by the month in which that API was current.
#if MELT_LLAMA_API != 202402 && MELT_LLAMA_API != 202610
#error "engine.cpp does not know this release's API"
#endif

namespace melt {

#if MELT_LLAMA_API >= 202610

inline llama_model * load(const std::string & path, llama_model_params params) {
    return llama_model_load_from_file(path.c_str(), params);
}

inline void choose_loading(const Fields & fields, Parameters & p) {
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

inline llama_context * create(llama_model * model, const llama_context_params & params) {
    return llama_init_from_model(model, params);
}

inline void release(llama_model * model) { llama_model_free(model); }
inline int32_t vocabulary_size(const llama_model * model) { return llama_vocab_n_tokens(llama_model_get_vocab(model)); }
inline int32_t trained_context(const llama_model * model) { return llama_model_n_ctx_train(model); }

constexpr bool takes_adapters = true;
inline llama_adapter_lora * load_adapter(llama_model * model, const std::string & path) {
    return llama_adapter_lora_init(model, path.c_str());
}
inline void apply(llama_context * context, llama_adapter_lora * adapter, float scale) {
    llama_set_adapters_lora(context, &adapter, 1, &scale);
}
// What its file says; 0 where it says nothing, and the scale alone counts.
inline double alpha_of(const llama_adapter_lora * adapter) {
    char text[64] = "";
    llama_adapter_meta_val_str(adapter, "adapter.lora.alpha", text, sizeof text);
    return std::strtod(text, nullptr);
}
inline bool wants_bos(const llama_model * model) { return llama_vocab_get_add_bos(llama_model_get_vocab(model)); }

inline int32_t tokenize_into(const llama_model * model, const std::string & text, std::vector<Token> & tokens, bool bos) {
    return llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), bos, true);
}

inline int32_t piece_into(const llama_model * model, Token token, std::string & buffer) {
    return llama_token_to_piece(llama_model_get_vocab(model), token, buffer.data(), static_cast<int32_t>(buffer.size()), 0,
                                false);
}

inline bool ends_generation(const llama_model * model, Token token) {
    return llama_vocab_is_eog(llama_model_get_vocab(model), token);
}

inline llama_batch batch_of(Token * tokens, int32_t count, int32_t) { return llama_batch_get_one(tokens, count); }
inline bool keep_first(llama_context * context, int32_t count) {
    return llama_memory_seq_rm(llama_get_memory(context), 0, count, -1);
}
// The other sequence holds what the first one does, or nothing.
inline void copy_first(llama_context * context, int32_t other, bool held) {
    llama_memory_seq_rm(llama_get_memory(context), other, -1, -1);
    if (held) {
        llama_memory_seq_cp(llama_get_memory(context), 0, other, -1, -1);
    }
}
inline void hold_sequences(llama_context_params & params, int32_t count) { params.n_seq_max = static_cast<uint32_t>(count); }
inline size_t save(llama_context * context, const char * path) { return llama_state_seq_save_file(context, path, 0, nullptr, 0); }
inline size_t load_saved(llama_context * context, const char * path, llama_token * tokens, size_t most, size_t & count) {
    return llama_state_seq_load_file(context, path, 0, tokens, most, &count);
}
// One step of ours is one step of the framework's, which by itself tells logical from physical batches.
inline void limit_step(llama_context_params & params) {
    params.n_ubatch = params.n_ubatch == 0 ? params.n_batch : std::min(params.n_ubatch, params.n_batch);
}
inline int32_t computed_step(const llama_context * context) { return static_cast<int32_t>(llama_n_ubatch(context)); }
// Asked for as `auto`, it is decided when the context is made, and told in the log alone.
inline std::string flash_attention(const llama_context_params & params, const Log & log) {
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO || log.flash_attention == "off") {
        return log.flash_attention;
    }
    return params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED ? "on" : "off";
}
inline int32_t threads_of(llama_context * context, const Parameters &) { return llama_n_threads(context); }
inline int32_t batch_threads_of(llama_context * context, const Parameters &) { return llama_n_threads_batch(context); }
inline bool keeps_all(const llama_model * model, const Parameters & p) { return p.context.swa_full || llama_model_n_swa(model) == 0; }

inline std::unique_ptr<Threads> start_threads(const Parameters & p) {
    return std::make_unique<Threads>(p.context.n_threads, p.context.n_threads_batch, p.pool);
}

inline std::string devices() {
    std::string list;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        list += std::string(list.empty() ? "" : ", ") + ggml_backend_dev_name(device) + " (" +
                ggml_backend_dev_description(device) + ")";
    }
    return list;
}
inline void synchronize(llama_context * context) { llama_synchronize(context); }
inline const float * last_logits(llama_context * context) { return llama_get_logits_ith(context, -1); }
inline bool continues_line(ggml_log_level level) { return level == GGML_LOG_LEVEL_CONT; }
inline void empty(llama_context * context) { llama_memory_clear(llama_get_memory(context), false); }

#else

struct llama_adapter_lora;

inline llama_model * load(const std::string & path, llama_model_params params) {
    return llama_load_model_from_file(path.c_str(), params);
}

inline void choose_loading(const Fields &, Parameters & p) {
    p.model.use_mmap = p.load == load_mmap;
    p.model.use_mlock = p.mlock;
}

inline llama_context * create(llama_model * model, const llama_context_params & params) {
    return llama_new_context_with_model(model, params);
}

inline void release(llama_model * model) { llama_free_model(model); }
inline int32_t vocabulary_size(const llama_model * model) { return llama_n_vocab(model); }

constexpr bool takes_adapters = false;  // not those of today: it had a format of its own, without an architecture
inline llama_adapter_lora * load_adapter(llama_model *, const std::string &) { return nullptr; }
inline void apply(llama_context *, llama_adapter_lora *, float) {}
inline double alpha_of(const llama_adapter_lora *) { return 0; }
inline int32_t trained_context(const llama_model * model) { return llama_n_ctx_train(model); }

inline bool wants_bos(const llama_model * model) {
    const int32_t said = llama_add_bos_token(model);  // -1: the model does not say
    return said == -1 ? llama_vocab_type(model) == LLAMA_VOCAB_TYPE_SPM : said == 1;
}

inline int32_t tokenize_into(const llama_model * model, const std::string & text, std::vector<Token> & tokens, bool bos) {
    return llama_tokenize(model, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), bos, true);
}

inline int32_t piece_into(const llama_model * model, Token token, std::string & buffer) {
    return llama_token_to_piece(model, token, buffer.data(), static_cast<int32_t>(buffer.size()));
}

// This release knows of one EOS token only. Chat models end their turns with others, which later releases find by
// their text; the same texts here, so that both releases stop at the same token.
inline bool ends_generation(const llama_model * model, Token token) {
    static const char * const texts[] = {"<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
                                         "<|endoftext|>", "</s>",       "<EOT>",   "<|end_of_text|>"};
    if (token == llama_token_eos(model)) {
        return true;
    }
    const std::string text = llama_token_get_text(model, token);
    return llama_token_get_type(model, token) == LLAMA_TOKEN_TYPE_CONTROL &&
           std::find(std::begin(texts), std::end(texts), text) != std::end(texts);
}

inline llama_batch batch_of(Token * tokens, int32_t count, int32_t past) { return llama_batch_get_one(tokens, count, past, 0); }
inline bool keep_first(llama_context * context, int32_t count) {
    llama_kv_cache_seq_rm(context, 0, count, -1);
    return true;
}
inline void copy_first(llama_context * context, int32_t other, bool held) {
    llama_kv_cache_seq_rm(context, other, -1, -1);
    if (held) {
        llama_kv_cache_seq_cp(context, 0, other, -1, -1);
    }
}
inline void hold_sequences(llama_context_params &, int32_t) {}
inline size_t save(llama_context * context, const char * path) {
    return llama_save_session_file(context, path, nullptr, 0) ? 1 : 0;
}
inline size_t load_saved(llama_context * context, const char * path, llama_token * tokens, size_t most, size_t & count) {
    return llama_load_session_file(context, path, tokens, most, &count) ? 1 : 0;
}
inline void limit_step(llama_context_params &) {}
inline int32_t computed_step(const llama_context * context) { return static_cast<int32_t>(llama_n_batch(context)); }
inline std::string flash_attention(const llama_context_params &, const Log &) { return "off"; }  // this release has none
inline int32_t threads_of(llama_context *, const Parameters & p) { return static_cast<int32_t>(p.context.n_threads); }
inline int32_t batch_threads_of(llama_context *, const Parameters & p) { return static_cast<int32_t>(p.context.n_threads_batch); }
inline bool keeps_all(const llama_model *, const Parameters &) { return true; }
inline std::unique_ptr<Threads> start_threads(const Parameters &) { return std::make_unique<Threads>(); }

inline std::string devices() {
    std::string list;
    for (size_t i = 0; i < ggml_backend_reg_get_count(); ++i) {
        list += (list.empty() ? "" : ", ") + std::string(ggml_backend_reg_get_name(i));
    }
    return list;
}
inline void synchronize(llama_context *) {}
inline const float * last_logits(llama_context * context) { return llama_get_logits(context); }
inline bool continues_line(ggml_log_level) { return false; }
inline void empty(llama_context * context) { llama_kv_cache_clear(context); }

#endif

}  // namespace melt
