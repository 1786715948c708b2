// melt-runner request.json events.jsonl: see docs/runner.md.

#include "asking.h"
#include "caching.h"
#include "clock.h"
#include "drafter.h"
#include "engine.h"
#include "events.h"
#include "failure.h"
#include "process.h"
#include "pulse.h"
#include "request.h"
#include "session.h"
#include "signals.h"

#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <unistd.h>

namespace melt {
namespace {

constexpr int contract_version = 1;

void say_hello(const Identity & engine, Events & events) {
    const int64_t t = monotonic_ns();
    const int64_t wall = wall_ns();
    events.add_at(t, "hello",
                  {{"v", contract_version},
                   {"runner", "melt-runner"},
                   {"framework", engine.framework},
                   {"commit", engine.commit},
                   {"isa", engine.isa},
                   {"wall", wall},
                   {"pid", getpid()},
                   {"system", engine.system}});
    events.add("process", process_facts());
    events.flush();
}

// A file that is gone when this is.
struct Scratch {
    const std::string path;
    ~Scratch() { std::remove(path.c_str()); }
};

void hold_conversations(const std::string & request_path, const Scratch & saved, Events & events) {
    const std::unique_ptr<Engine> engine = make_engine();
    say_hello(engine->identity(), events);
    Request request = read_request(request_path, *engine);
    if (request.ask) {
        ask(request, events);
        return;
    }

    enter_step(ExitCode::model);
    engine->check(request.model);
    const double cached_share = prepare_cache(request.model, request.caching);
    events.add("load_begin", {{"cached_share", cached_share}, {"asked", caching_name(request.caching)}});
    const ModelFacts model = engine->load(request.model);
    const Json::Object loaded{{"model_bytes", model.bytes},
                              {"n_params", model.n_params},
                              {"n_vocab", model.n_vocab},
                              {"n_ctx_train", model.n_ctx_train}};
    events.add("load_end", loaded);
    events.add_memory("load");

    enter_step(ExitCode::context);
    const ContextFacts context = engine->open(request.setup);
    const Json::Object opened{{"n_ctx", context.n_ctx},
                              {"n_batch", context.n_batch},
                              {"threads", request.setup.threads},
                              {"kv_bytes", context.kv_bytes}};
    events.add("context", opened);
    const Json::Object effective = engine->effective();
    if (!effective.empty()) {
        events.add("effective", effective);
    }
    const std::unique_ptr<Drafter> drafter = make_drafter(request, model, events);
    events.flush();

    enter_step(ExitCode::decode);
    Session session(request, *engine, model, context, events, drafter.get(), saved.path);
    give_sync_mark(request.sync_mark, request.setup.threads, events);
    session.warm_up();
    std::optional<Link> asker;
    if (request.serve) {
        events.flush();
        asker.emplace(Link::accept(*request.serve));
        asker->send({{"load", loaded}, {"context", opened}, {"effective", effective}});
    }
    session.run(asker ? &*asker : nullptr);
    give_sync_mark(request.sync_mark, request.setup.threads, events);
    session.write_profile();
    events.add_memory("end");
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
        hold_conversations(request_path, Scratch{events_path + ".context"}, events);
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
