#include "pulse.h"

#include "clock.h"
#include "pause.h"

#include <atomic>
#include <thread>
#include <vector>

namespace melt {
namespace {

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
    pause_for_ms(mark.rest_ms);
    for (size_t i = 0; i < mark.pulses_ms.size(); ++i) {
        {
            const Load load(threads);
            const int64_t begin = monotonic_ns();
            events.add_at(begin, "pulse_begin", {{"i", i}});
            pause_until(begin + int64_t{mark.pulses_ms[i]} * 1'000'000);
        }
        events.add("pulse_end", {{"i", i}});
        pause_for_ms(mark.rest_ms);
    }
    events.flush();
}

}  // namespace melt
