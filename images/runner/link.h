// The way between a device that asks and one whose engine answers: lines of JSON over TCP (docs/runner.md#offloading).
#pragma once

#include "json.h"

#include <cstdint>
#include <string>

namespace melt {

// Where the other side is, or where to wait for it; the token is a secret of one trial that both know.
struct Peer {
    std::string address;  // numbers, of IPv4 or IPv6
    uint16_t port;
    std::string token;
};

// Every function throws the Failure of the step that is being taken, or Stopped.
class Link {
public:
    // Wait for the side that asks.
    static Link accept(const Peer & at);
    // Reach the side that answers, however long that takes to begin: until it has said something.
    static Link connect(const Peer & to);
    Link(Link && other) noexcept;
    ~Link();
    Link(const Link &) = delete;
    Link & operator=(const Link &) = delete;

    void send(Json::Object fields);
    Json receive();

    // Bytes so far, as the two sides wrote them: without what the network adds.
    uint64_t sent() const { return n_sent; }
    uint64_t received() const { return n_received; }

private:
    explicit Link(int socket) : socket(socket) {}
    // These are false where the other side has ended.
    bool write(const std::string & line);
    bool read();

    int socket;
    std::string arrived;  // and not asked for yet
    uint64_t n_sent = 0;
    uint64_t n_received = 0;
};

}  // namespace melt
