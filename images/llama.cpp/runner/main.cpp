// melt-runner request.json events.jsonl: see docs/runner.md.

#include "clock.h"
#include "events.h"
#include "failure.h"
#include "framework.h"
#include "gguf.h"
#include "memory.h"
#include "profile.h"
#include "pulse.h"
#include "request.h"
#include "session.h"
#include "signals.h"

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <unistd.h>

namespace melt {
namespace {

constexpr int contract_version = 1;

void say_hello(Events & events) {
    const int64_t t = monotonic_ns();
    const int64_t wall = wall_ns();
    events.add_at(t, "hello",
                  {{"v", contract_version},
                   {"runner", "melt-runner"},
                   {"framework", "llama.cpp"},
                   {"commit", MELT_COMMIT},
                   {"isa", MELT_ISA},
                   {"wall", wall},
                   {"pid", getpid()},
                   {"system", system_info()}});
    events.flush();
}

void hold_conversations(const std::string & request_path, Events & events) {
    say_hello(events);
    const Request request = read_request(request_path);

    enter_step(ExitCode::model);
    const uint64_t model_bytes = check_gguf(request.model);
    events.add("load_begin");
    const Model model(request.model, request.gpu_layers, request.mmap);
    events.add("load_end", {{"model_bytes", model_bytes},
                            {"n_params", model.n_params()},
                            {"n_vocab", model.n_vocab()},
                            {"n_ctx_train", model.n_ctx_train()}});
    events.add("mem", memory_fields("load"));

    enter_step(ExitCode::context);
    OperatorProfile profile;
    Context context(model, request, request.profile_operators ? &profile : nullptr);
    const auto kv_bytes = model.kv_bytes(context.n_ctx());
    events.add("context", {{"n_ctx", context.n_ctx()},
                           {"n_batch", context.n_batch()},
                           {"threads", request.threads},
                           {"kv_bytes", kv_bytes ? Events::Fields(*kv_bytes) : Events::Fields(nullptr)}});
    events.flush();

    enter_step(ExitCode::decode);
    Session session(request, model, context, profile, events);
    give_sync_mark(request.sync_mark, request.threads, events);
    session.warm_up();
    session.run();
    give_sync_mark(request.sync_mark, request.threads, events);
    profile.write(events);
    events.add("mem", memory_fields("end"));
    events.add("done");
    events.sync();
}

int give_up(Events & events, int code, const std::string & message) {
    std::fprintf(stderr, "melt-runner: %s\n", message.c_str());
    try {
        events.add("error", {{"code", code}, {"message", message}});
        events.sync();
    } catch (const Failure & failure) {
        std::fprintf(stderr, "melt-runner: %s\n", failure.what());
        return static_cast<int>(failure.code);
    }
    return code;
}

int run(const std::string & request_path, const std::string & events_path) {
    Events events(events_path);
    install_signal_handlers(events.descriptor());
    try {
        hold_conversations(request_path, events);
    } catch (const Stopped & stopped) {
        return give_up(events, 128 + stopped.signal, "stopped by signal " + std::to_string(stopped.signal));
    } catch (const Failure & failure) {
        return give_up(events, static_cast<int>(failure.code), failure.what());
    } catch (const std::bad_alloc &) {
        return give_up(events, static_cast<int>(current_step()), "out of memory");
    } catch (const std::exception & error) {
        return give_up(events, static_cast<int>(current_step()), std::string("the framework threw: ") + error.what());
    }
    return static_cast<int>(ExitCode::ok);
}

}  // namespace
}  // namespace melt

int main(int argc, char ** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: melt-runner request.json events.jsonl\n");
        return static_cast<int>(melt::ExitCode::bad_request);
    }
    try {
        return melt::run(argv[1], argv[2]);
    } catch (const melt::Failure & failure) {
        std::fprintf(stderr, "melt-runner: %s\n", failure.what());
        return static_cast<int>(failure.code);
    }
}
