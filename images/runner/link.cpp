#include "link.h"

#include "failure.h"
#include "pause.h"
#include "signals.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace melt {
namespace {

constexpr int slice_ms = 50;  // a signal is noticed within this
constexpr size_t longest_line = size_t{1} << 24;
constexpr const char * ended = "the other side has ended";

[[noreturn]] void fail(const std::string & problem) { throw Failure(current_step(), "link: " + problem); }

[[noreturn]] void cannot(const std::string & what) { fail("cannot " + what + ": " + std::strerror(errno)); }

std::string line_of(Json::Object fields) { return Json(std::move(fields)).dump() + "\n"; }

std::string named(const Peer & peer) { return peer.address + " port " + std::to_string(peer.port); }

std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> resolve(const Peer & peer) {
    addrinfo wanted{};
    wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;  // nobody is asked, so that no library of names is needed
    wanted.ai_socktype = SOCK_STREAM;
    addrinfo * found = nullptr;
    if (getaddrinfo(peer.address.c_str(), std::to_string(peer.port).c_str(), &wanted, &found) != 0) {
        fail("expected an IP address, got " + peer.address);
    }
    return {found, &freeaddrinfo};
}

class Descriptor {
public:
    explicit Descriptor(int number) : number(number) {}
    ~Descriptor() {
        if (number >= 0) {
            close(number);
        }
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor & operator=(const Descriptor &) = delete;
    int get() const { return number; }
    int release() {
        const int mine = number;
        number = -1;
        return mine;
    }

private:
    int number;
};

void wait_for(int socket, short what) {
    for (;;) {
        throw_if_stopped();
        pollfd watched{socket, what, 0};
        const int ready = poll(&watched, 1, slice_ms);
        if (ready > 0) {
            return;
        }
        if (ready < 0 && errno != EINTR) {
            cannot("wait");
        }
    }
}

// Tokens are small and are not to wait for each other; a side that has ended is an error of send(), no signal.
int prepared(int socket) {
    signal(SIGPIPE, SIG_IGN);
    const int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return socket;
}

}  // namespace

Link Link::accept(const Peer & at) {
    const auto place = resolve(at);
    const Descriptor listening(::socket(place->ai_family, SOCK_STREAM, 0));
    const int on = 1;
    setsockopt(listening.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening.get(), place->ai_addr, place->ai_addrlen) != 0 || listen(listening.get(), 1) != 0) {
        cannot("wait at " + named(at));
    }
    wait_for(listening.get(), POLLIN);
    const int socket = ::accept(listening.get(), nullptr, nullptr);
    if (socket < 0) {
        cannot("accept at " + named(at));
    }
    Link link(prepared(socket));
    const Json first = link.receive();
    const Json * token = first.find("token");
    if (token == nullptr || token->as<std::string>() == nullptr || *token->as<std::string>() != at.token) {
        link.write(line_of({{"refused", "its token is not that of this trial"}}));  // it would try again
        fail("whoever asks at " + named(at) + " is not of this trial");
    }
    return link;
}

Link Link::connect(const Peer & to) {
    const auto place = resolve(to);
    const std::string hello = line_of({{"token", to.token}});
    for (;; pause_for_ms(slice_ms)) {
        Descriptor socket(::socket(place->ai_family, SOCK_STREAM, 0));
        if (::connect(socket.get(), place->ai_addr, place->ai_addrlen) != 0) {
            if (errno != ECONNREFUSED && errno != EINTR && errno != ETIMEDOUT) {
                cannot("reach " + named(to));
            }
            continue;
        }
        // A relay takes every connection, and closes it where nobody listens behind it yet.
        Link link(prepared(socket.release()));
        if (link.write(hello) && link.read()) {
            return link;
        }
    }
}

Link::Link(Link && other) noexcept
    : socket(other.socket), arrived(std::move(other.arrived)), n_sent(other.n_sent), n_received(other.n_received) {
    other.socket = -1;
}

Link::~Link() {
    if (socket >= 0) {
        close(socket);
    }
}

void Link::send(Json::Object fields) {
    if (!write(line_of(std::move(fields)))) {
        fail(ended);
    }
}

bool Link::write(const std::string & line) {
    for (size_t done = 0; done < line.size();) {
        const ssize_t written = ::send(socket, line.data() + done, line.size() - done, 0);
        if (written < 0 && errno == EINTR) {
            throw_if_stopped();
            continue;
        }
        if (written < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            return false;
        }
        if (written < 0) {
            cannot("send");
        }
        done += static_cast<size_t>(written);
    }
    n_sent += line.size();
    return true;
}

bool Link::read() {
    for (;;) {
        wait_for(socket, POLLIN);
        char bytes[4096];
        const ssize_t count = recv(socket, bytes, sizeof bytes, 0);
        if (count > 0) {
            arrived.append(bytes, static_cast<size_t>(count));
            return true;
        }
        if (count == 0 || errno == ECONNRESET) {
            return false;
        }
        if (errno != EINTR) {
            cannot("receive");
        }
    }
}

Json Link::receive() {
    size_t end = arrived.find('\n');
    while (end == std::string::npos) {
        if (arrived.size() > longest_line) {
            fail("a line does not end");
        }
        const size_t before = arrived.size();
        if (!read()) {
            fail(ended);
        }
        end = arrived.find('\n', before);
    }
    const std::string line = arrived.substr(0, end);
    arrived.erase(0, end + 1);
    n_received += end + 1;
    try {
        return Json::parse(line);
    } catch (const JsonError & error) {
        fail(std::string("what arrived is no JSON: ") + error.what());
    }
}

}  // namespace melt
