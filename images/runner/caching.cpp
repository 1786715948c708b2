#include "caching.h"

#include "failure.h"
#include "signals.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace melt {
namespace {

constexpr size_t most_looks = 256;  // at pages of a file, evenly spread

struct Cached {
    double bytes = 0, resident = 0;
};

long major_faults() {
#if defined(RUSAGE_THREAD)
    constexpr int whose = RUSAGE_THREAD;
#else
    constexpr int whose = RUSAGE_SELF;
#endif
    struct rusage usage {};
    getrusage(whose, &usage);
    return usage.ru_majflt;
}

void drop([[maybe_unused]] int descriptor, [[maybe_unused]] size_t begin, [[maybe_unused]] size_t size) {
#if defined(POSIX_FADV_DONTNEED)
    posix_fadvise(descriptor, static_cast<off_t>(begin), static_cast<off_t>(size), POSIX_FADV_DONTNEED);
#endif
}

void read_all(int descriptor) {
    std::vector<char> buffer(1 << 20);
    while (read(descriptor, buffer.data(), buffer.size()) > 0) {
        throw_if_stopped();
    }
}

// The kernel tells what is cached to a file's owner alone. Whoever may read it can tell by touching a page: one that must be
// fetched is a major fault. Pages that were fetched for that are dropped again.
double resident_share(int descriptor, size_t size) {
    void * map = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (map == MAP_FAILED) {
        throw Failure(ExitCode::model, std::string("the model cannot be mapped: ") + std::strerror(errno));
    }
    madvise(map, size, MADV_RANDOM);  // fetch no page besides
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t pages = (size + page - 1) / page, looks = std::min(pages, most_looks);
    std::vector<size_t> fetched;
    for (size_t look = 0; look < looks; ++look) {
        const size_t begin = (2 * look + 1) * pages / (2 * looks) * page;
        const long before = major_faults();
        static_cast<void>(static_cast<const volatile char *>(map)[begin]);
        if (major_faults() != before) {
            fetched.push_back(begin);
        }
    }
    munmap(map, size);
    for (const size_t begin : fetched) {
        drop(descriptor, begin, page);
    }
    return 1 - static_cast<double>(fetched.size()) / static_cast<double>(looks);
}

void add_file(const std::string & path, Caching caching, Cached & cached) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat file {};
    if (descriptor < 0 || fstat(descriptor, &file) != 0) {
        throw Failure(ExitCode::model, path + " cannot be opened: " + std::strerror(errno));
    }
    if (file.st_size > 0) {
        if (caching == Caching::warm) {
            read_all(descriptor);
        } else if (caching == Caching::cold) {
            fdatasync(descriptor);  // pages that are still to be written stay
            drop(descriptor, 0, 0);
        }
        const auto size = static_cast<size_t>(file.st_size);
        cached.bytes += static_cast<double>(size);
        cached.resident += static_cast<double>(size) * resident_share(descriptor, size);
    }
    close(descriptor);
}

}  // namespace

std::optional<std::string> caching_name(Caching caching) {
    if (caching == Caching::as_is) {
        return std::nullopt;
    }
    return caching == Caching::cold ? "cold" : "warm";
}

double prepare_cache(const std::string & model, Caching caching) {
    Cached cached;
    if (std::filesystem::is_directory(model)) {
        for (const auto & entry : std::filesystem::recursive_directory_iterator(model)) {
            if (entry.is_regular_file()) {
                add_file(entry.path().string(), caching, cached);
            }
        }
    } else {
        add_file(model, caching, cached);
    }
    return cached.bytes == 0 ? 0 : cached.resident / cached.bytes;
}

}  // namespace melt
