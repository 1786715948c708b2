#include "caching.h"

#include "failure.h"
#include "signals.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace melt {
namespace {

struct Cached {
    uint64_t pages = 0, resident = 0;
    bool told = true;
};

// The kernel calls every page of a stranger's file resident.
bool may_ask(const struct stat & file, const std::string & path) {
    return file.st_uid == geteuid() || access(path.c_str(), W_OK) == 0;
}

void read_all(int descriptor) {
    std::vector<char> buffer(1 << 20);
    while (read(descriptor, buffer.data(), buffer.size()) > 0) {
        throw_if_stopped();
    }
}

void add_file(const std::string & path, Caching caching, Cached & cached) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat file {};
    if (descriptor < 0 || fstat(descriptor, &file) != 0) {
        throw Failure(ExitCode::model, path + " cannot be opened: " + std::strerror(errno));
    }
    const auto size = static_cast<size_t>(file.st_size);
    if (caching == Caching::warm) {
        read_all(descriptor);
    }
#if defined(POSIX_FADV_DONTNEED)
    if (caching == Caching::cold) {
        fdatasync(descriptor);  // pages that are still to be written stay
        posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    }
#endif
    void * map = size == 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (map != MAP_FAILED) {
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        std::vector<unsigned char> pages((size + page - 1) / page);
#if defined(__APPLE__)
        const bool told = mincore(map, size, reinterpret_cast<char *>(pages.data())) == 0;
#else
        const bool told = mincore(map, size, pages.data()) == 0;
#endif
        cached.told = cached.told && told && may_ask(file, path);
        cached.pages += pages.size();
        for (const unsigned char flags : pages) {
            cached.resident += flags & 1U;
        }
        munmap(map, size);
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

std::optional<double> prepare_cache(const std::string & model, Caching caching) {
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
    if (!cached.told || cached.pages == 0) {
        return std::nullopt;
    }
    return static_cast<double>(cached.resident) / static_cast<double>(cached.pages);
}

}  // namespace melt
