#include "asking.h"

#include "clock.h"
#include "failure.h"
#include "link.h"
#include "pause.h"
#include "pulse.h"
#include "signals.h"

#include <string>

namespace melt {
namespace {

// What the other side says of itself, written down as if it were said here.
void relay(const Json & said, const char * part, const char * kind, Events & events) {
    const Json::Object & fields = said.at(part).get<Json::Object>();
    if (!fields.empty()) {
        events.add(kind, fields);
    }
}

// Returns whether the conversation can go on.
bool take_turn(const Prompt & prompt, size_t conversation, size_t turn, Link & link, Events & events) {
    const uint64_t sent = link.sent();
    const uint64_t received = link.received();
    events.add("turn_begin", {{"c", conversation}, {"i", turn}});
    link.send({{"text", prompt.text}});
    events.add("asked");
    for (int64_t index = 0;; ++index) {
        const Json answer = link.receive();
        const int64_t t = monotonic_ns();
        if (const Json * token = answer.find("token")) {
            events.add_token(t, index, static_cast<int32_t>(token->get<int64_t>()), std::nullopt);
            continue;
        }
        Json::Object fields = answer.get<Json::Object>();
        fields.emplace_back("sent_bytes", link.sent() - sent);
        fields.emplace_back("received_bytes", link.received() - received);
        events.add_at(t, "turn_end", fields);
        events.add_memory("turn");
        events.flush();
        return answer.at("stop").get<std::string>() != "context";
    }
}

void converse(const Request & request, Link & link, Events & events) {
    for (size_t conversation = 0; conversation < request.conversations.size(); ++conversation) {
        if (conversation > 0) {
            pause_for_ms(request.conversation_pause_ms);
        }
        link.receive();  // its context over there is ready
        events.add("conversation_begin", {{"c", conversation}});
        const auto & turns = request.conversations[conversation];
        for (size_t turn = 0; turn < turns.size(); ++turn) {
            if (turn > 0) {
                pause_for_ms(request.turn_pause_ms);
            }
            if (!take_turn(turns[turn], conversation, turn, link, events)) {
                break;
            }
        }
        events.add("conversation_end", {{"c", conversation}});
        events.flush();
    }
}

}  // namespace

void ask(const Request & request, Events & events) {
    enter_step(ExitCode::context);
    events.add("load_begin", {{"cached_share", nullptr}, {"asked", nullptr}});
    events.flush();
    try {
        Link link = Link::connect(*request.ask);
        const Json ready = link.receive();
        if (const Json * why = ready.find("refused")) {
            throw Failure(current_step(), "link: the other side refuses: " + why->get<std::string>());
        }
        relay(ready, "load", "load_end", events);
        events.add_memory("load");
        relay(ready, "context", "context", events);
        relay(ready, "effective", "effective", events);
        enter_step(ExitCode::decode);
        give_sync_mark(request.sync_mark, request.setup.threads, events);
        converse(request, link, events);
    } catch (const JsonError & error) {
        throw Failure(current_step(), std::string("link: what arrived is no answer: ") + error.what());
    }
    give_sync_mark(request.sync_mark, request.setup.threads, events);
    events.add_memory("end");
    events.add("done");
    events.sync();
}

}  // namespace melt
