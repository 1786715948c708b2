#include "pause.h"

#include "clock.h"
#include "signals.h"

#include <algorithm>
#include <time.h>

namespace melt {
namespace {

constexpr int64_t slice_ns = 5'000'000;  // a signal is noticed within this

}  // namespace

void pause_until(int64_t t) {
    for (int64_t left = t - monotonic_ns(); left > 0; left = t - monotonic_ns()) {
        throw_if_stopped();
        const timespec slice{0, static_cast<long>(std::min(left, slice_ns))};
        nanosleep(&slice, nullptr);
    }
}

void pause_for_ms(int64_t duration) { pause_until(monotonic_ns() + duration * 1'000'000); }

}  // namespace melt
