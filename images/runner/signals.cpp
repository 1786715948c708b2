#include "signals.h"

#include "clock.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace melt {
namespace {

volatile sig_atomic_t requested = 0;
volatile sig_atomic_t step = static_cast<int>(ExitCode::bad_request);
volatile sig_atomic_t events_file = -1;

// Appends a number to a text; for handlers, where snprintf may not be called.
char * put(char * end, int64_t number) {
    char digits[20];
    int count = 0;
    do {
        digits[count++] = static_cast<char>('0' + number % 10);
    } while ((number /= 10) != 0);
    while (count > 0) {
        *end++ = digits[--count];
    }
    return end;
}

char * put(char * end, const char * text) {
    const size_t length = std::strlen(text);
    std::memcpy(end, text, length);
    return end + length;
}

void on_stop(int signal) { requested = signal; }

bool write_out(int file, const char * begin, const char * end) {
    return write(file, begin, static_cast<size_t>(end - begin)) == end - begin;
}

void on_crash(int signal) {
    char message[80];
    char * end = put(message, "the framework died of signal ");
    end = put(end, signal);
    end = put(end, "; its last lines on stderr may say why");
    *end = '\0';

    char line[160];
    end = put(line, "{\"e\":\"error\",\"t\":");
    end = put(end, monotonic_ns());
    end = put(end, ",\"code\":");
    end = put(end, step);
    end = put(end, ",\"message\":\"");
    end = put(end, message);
    end = put(end, "\"}\n");
    const bool recorded = write_out(events_file, line, end);

    end = put(line, "melt-runner: ");
    end = put(end, message);
    end = put(end, "\n");
    write_out(STDERR_FILENO, line, end);
    _exit(static_cast<int>(recorded ? current_step() : ExitCode::events));
}

void install(int signal, void (*handler)(int)) {
    struct sigaction action{};
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, nullptr);
}

}  // namespace

void install_signal_handlers(int events) {
    events_file = events;
    install(SIGTERM, on_stop);
    install(SIGINT, on_stop);
    for (const int signal : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) {
        install(signal, on_crash);
    }
}

int stop_signal() { return requested; }

void throw_if_stopped() {
    if (requested != 0) {
        throw Stopped{requested};
    }
}

void enter_step(ExitCode code) { step = static_cast<int>(code); }

ExitCode current_step() { return static_cast<ExitCode>(step); }

}  // namespace melt
