#include "pulse.h"

#include "clock.h"
#include "signals.h"

#include <atomic>
#include <thread>
#include <time.h>
#include <vector>

namespace melt {
namespace {

constexpr int64_t slice_ns = 5'000'000;

// Sleep until a moment on the monotonic clock, waking often enough to notice a signal.
void wait_until(int64_t t) {
    for (int64_t left = t - monotonic_ns(); left > 0; left = t - monotonic_ns()) {
        throw_if_stopped();
        const timespec slice{0, static_cast<long>(left < slice_ns ? left : slice_ns)};
        nanosleep(&slice, nullptr);
    }
}

// Threads that multiply until the load is dropped.
class Load {
public:
    explicit Load(int32_t threads) {
        for (int32_t i = 0; i < threads; ++i) {
            workers.emplace_back([this] { work(); });
        }
    }
    ~Load() {
        over = true;
        for (std::thread & worker : workers) {
            worker.join();
        }
    }
    Load(const Load &) = delete;
    Load & operator=(const Load &) = delete;

private:
    void work() {
        volatile float sink = 1.0F;
        while (!over) {
            float lanes[16] = {1.0F};
            for (int round = 0; round < 4096; ++round) {
                for (float & lane : lanes) {
                    lane = lane * 0.999F + 0.5F;
                }
            }
            sink = lanes[0];
        }
        static_cast<void>(sink);
    }

    std::atomic<bool> over{false};
    std::vector<std::thread> workers;
};

}  // namespace

void give_sync_mark(const SyncMark & mark, int32_t threads, Events & events) {
    if (mark.pulses_ms.empty()) {
        return;
    }
    const int64_t rest_ns = int64_t{mark.rest_ms} * 1'000'000;
    wait_until(monotonic_ns() + rest_ns);
    for (size_t i = 0; i < mark.pulses_ms.size(); ++i) {
        {
            const Load load(threads);
            const int64_t begin = monotonic_ns();
            events.add_at(begin, "pulse_begin", {{"i", i}});
            wait_until(begin + int64_t{mark.pulses_ms[i]} * 1'000'000);
        }
        events.add("pulse_end", {{"i", i}});
        wait_until(monotonic_ns() + rest_ns);
    }
    events.flush();
}

}  // namespace melt
