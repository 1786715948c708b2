#include "gguf.h"

#include "failure.h"
#include "ggml.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <system_error>

namespace melt {
namespace {

constexpr uint32_t magic = 0x46554747;  // "GGUF", little-endian as everything in the file
constexpr uint32_t type_uint32 = 4, type_string = 8, type_array = 9;
constexpr uint64_t default_alignment = 32;

// Bytes of a metadata value's type; 0 for those without a fixed size.
uint64_t fixed_size(uint32_t type) {
    constexpr uint64_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof sizes / sizeof sizes[0] ? sizes[type] : 0;
}

class Reader {
public:
    explicit Reader(const std::string & path) : path(path), file(path, std::ios::binary) {
        std::error_code error;
        length = std::filesystem::file_size(path, error);
        if (error) {
            fail("cannot be read: " + error.message());
        }
        if (!file) {
            fail("cannot be opened");
        }
    }

    [[noreturn]] void fail(const std::string & problem) const {
        throw Failure(ExitCode::model, "model " + path + " " + problem);
    }

    uint64_t size() const { return length; }
    uint64_t at() const { return position; }

    template <typename T>
    T read() {
        T value{};
        take(sizeof value);
        if (!file.read(reinterpret_cast<char *>(&value), sizeof value)) {
            fail("cannot be read");
        }
        return value;
    }

    void skip(uint64_t count) {
        take(count);
        // A seek throws the buffer away, which is no gain for the many short strings of a vocabulary.
        if (count < 4096) {
            file.ignore(static_cast<std::streamsize>(count));
        } else {
            file.seekg(static_cast<std::streamoff>(count), std::ios::cur);
        }
    }

    // Skip `count` things of `each` bytes.
    void skip(uint64_t count, uint64_t each) {
        if (each != 0 && count > length / each) {
            truncated();
        }
        skip(count * each);
    }

    std::string text() {
        std::string value(bounded(read<uint64_t>()), '\0');
        take(value.size());
        file.read(value.data(), static_cast<std::streamsize>(value.size()));
        return value;
    }

    // A count or length: nothing in a file is longer than the file.
    uint64_t bounded(uint64_t count) const {
        if (count > length) {
            truncated();
        }
        return count;
    }

    [[noreturn]] void truncated() const { fail("is damaged or cut short: it ends before what its header announces"); }

private:
    void take(uint64_t count) {
        if (count > length - position) {
            truncated();
        }
        position += count;
    }

    const std::string path;
    std::ifstream file;
    uint64_t length = 0;
    uint64_t position = 0;
};

void skip_value(Reader & reader, uint32_t type) {
    if (type == type_string) {
        reader.skip(reader.read<uint64_t>());
    } else if (type == type_array) {
        const auto element = reader.read<uint32_t>();
        const auto count = reader.bounded(reader.read<uint64_t>());
        if (element == type_string) {
            for (uint64_t i = 0; i < count; ++i) {
                reader.skip(reader.read<uint64_t>());
            }
        } else if (fixed_size(element) != 0) {
            reader.skip(count, fixed_size(element));
        } else {
            reader.fail("has an array of unknown type " + std::to_string(element));
        }
    } else if (fixed_size(type) != 0) {
        reader.skip(fixed_size(type));
    } else {
        reader.fail("has a metadata value of unknown type " + std::to_string(type));
    }
}

uint64_t read_alignment(Reader & reader, uint32_t type) {
    if (type != type_uint32) {
        reader.fail("gives general.alignment a type that is not uint32");
    }
    const auto alignment = reader.read<uint32_t>();
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        reader.fail("has a general.alignment of " + std::to_string(alignment));
    }
    return alignment;
}

// Reads one tensor's description; returns where its data ends, counted from where all data begin.
uint64_t tensor_end(Reader & reader) {
    const std::string name = reader.text();
    const auto n_dims = reader.read<uint32_t>();
    if (n_dims == 0 || n_dims > GGML_MAX_DIMS) {
        reader.fail("gives tensor " + name + " " + std::to_string(n_dims) + " dimensions");
    }
    uint64_t extent[GGML_MAX_DIMS] = {};
    for (uint32_t i = 0; i < n_dims; ++i) {
        extent[i] = reader.read<uint64_t>();
        reader.bounded(extent[i] / 8);  // no type takes less than a bit for a value
    }
    const auto type = reader.read<uint32_t>();
    const auto offset = reader.bounded(reader.read<uint64_t>());
    const auto block = type < GGML_TYPE_COUNT ? static_cast<uint64_t>(ggml_blck_size(static_cast<ggml_type>(type))) : 0;
    if (block == 0) {
        reader.fail("stores tensor " + name + " in type " + std::to_string(type) + ", which this release does not know");
    }
    if (extent[0] == 0 || extent[0] % block != 0) {
        reader.fail("gives tensor " + name + " rows of " + std::to_string(extent[0]) + " values");
    }
    uint64_t bytes = extent[0] / block * ggml_type_size(static_cast<ggml_type>(type));
    for (uint32_t i = 1; i < n_dims; ++i) {
        if (extent[i] == 0) {
            reader.fail("gives tensor " + name + " an extent of 0");
        }
        bytes = bytes > reader.size() / extent[i] ? reader.size() + 1 : bytes * extent[i];
    }
    return offset + reader.bounded(bytes);
}

}  // namespace

uint64_t check_gguf(const std::string & path) {
    Reader reader(path);
    if (reader.size() < sizeof magic || reader.read<uint32_t>() != magic) {
        reader.fail("is not a GGUF file");
    }
    const auto version = reader.read<uint32_t>();
    if (version != 2 && version != 3) {
        reader.fail("is a GGUF file of version " + std::to_string(version) + "; versions 2 and 3 are supported");
    }
    const auto n_tensors = reader.bounded(reader.read<uint64_t>());
    const auto n_values = reader.bounded(reader.read<uint64_t>());
    if (n_tensors == 0 || n_values == 0) {
        reader.fail("holds " + std::to_string(n_tensors) + " tensors and " + std::to_string(n_values) + " metadata values");
    }
    uint64_t alignment = default_alignment;
    for (uint64_t i = 0; i < n_values; ++i) {
        const std::string key = reader.text();
        const auto type = reader.read<uint32_t>();
        if (key == "general.alignment") {
            alignment = read_alignment(reader, type);
        } else {
            skip_value(reader, type);
        }
    }
    uint64_t end = 0;
    for (uint64_t i = 0; i < n_tensors; ++i) {
        end = std::max(end, tensor_end(reader));
    }
    const uint64_t data = (reader.at() + alignment - 1) / alignment * alignment;
    if (end > reader.size() || data > reader.size() - end) {
        reader.truncated();
    }
    return reader.size();
}

}  // namespace melt
