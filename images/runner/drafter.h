// What may come next, foreseen cheaply: the model then checks several tokens in one step, and its answer stays the same.
#pragma once

#include "engine.h"
#include "events.h"
#include "request.h"

#include <memory>
#include <vector>

namespace melt {

class Drafter {
public:
    virtual ~Drafter() = default;
    // At most `most` tokens that may follow the history of a conversation.
    virtual std::vector<Token> draft(const std::vector<Token> & history, size_t most) = 0;
};

// The drafter of a request, or none. A draft model is loaded, which adds a `draft` event: Failure(model) or Failure(context).
std::unique_ptr<Drafter> make_drafter(Request & request, const ModelFacts & model, Events & events);

}  // namespace melt
