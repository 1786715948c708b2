// What TVM's runtime includes of headers that its wheels lack: streams of bytes in its format, which is a number as the machine has it, and
// before whatever is many its count in 64 bits. Written anew, and only as far as it is called.
#pragma once

#include <tvm/ffi/error.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace tvm::support {

template <typename T>
struct Serializer;

class Stream {
public:
    virtual ~Stream() = default;
    virtual size_t Read(void * data, size_t size) = 0;
    virtual size_t Write(const void * data, size_t size) = 0;

    template <typename T>
    bool Read(T * value) {
        return Serializer<T>::Read(this, value);
    }
    template <typename T>
    void Write(const T & value) {
        Serializer<T>::Write(this, value);
    }
    template <typename T>
    bool ReadArray(T * values, size_t count) {
        return std::all_of(values, values + count, [this](T & each) { return Read(&each); });
    }
    template <typename T>
    void WriteArray(const T * values, size_t count) {
        std::for_each(values, values + count, [this](const T & each) { Write(each); });
    }
};

template <typename T>
struct Serializer {
    static bool Read(Stream * from, T * value) {
        check();
        return from->Read(static_cast<void *>(value), sizeof *value) == sizeof *value;
    }
    static void Write(Stream * to, const T & value) {
        check();
        to->Write(static_cast<const void *>(&value), sizeof value);
    }
    // Lists of arguments are TVM's objects: OpenCL's kernels are read elsewhere (opencl.cpp).
    static void check() {
        if constexpr (!std::is_trivially_copyable_v<T>) {
            TVM_FFI_THROW(RuntimeError) << "TVM's objects cannot be read or written here";
        }
    }
};

template <typename Many>
struct SerializerOfMany {
    static bool Read(Stream * from, Many * values) {
        uint64_t count = 0;
        values->clear();
        if (!from->Read(&count)) {
            return false;
        }
        // One by one, so that a damaged count ends with the bytes and takes no memory.
        for (typename Many::value_type each{}; count > 0 && from->Read(&each); --count) {
            values->push_back(each);
        }
        return count == 0;
    }
    static void Write(Stream * to, const Many & values) {
        to->Write(uint64_t{values.size()});
        to->WriteArray(values.data(), values.size());
    }
};
template <>
struct Serializer<std::string> : SerializerOfMany<std::string> {};
template <typename T>
struct Serializer<std::vector<T>> : SerializerOfMany<std::vector<T>> {};

class BytesInStream : public Stream {
public:
    template <typename Bytes>
    explicit BytesInStream(const Bytes & bytes) : place(bytes.data()), left(bytes.size()) {}
    using Stream::Read;
    size_t Read(void * data, size_t size) override {
        size = std::min(size, left);
        std::memcpy(data, place, size);
        place += size;
        left -= size;
        return size;
    }
    size_t Write(const void *, size_t) override { TVM_FFI_THROW(RuntimeError) << "this stream is read alone"; }

private:
    const char * place;
    size_t left;
};

class BytesOutStream : public Stream {
public:
    explicit BytesOutStream(std::string * bytes) : bytes(*bytes) {}
    using Stream::Write;
    size_t Read(void *, size_t) override { TVM_FFI_THROW(RuntimeError) << "this stream is written alone"; }
    size_t Write(const void * data, size_t size) override {
        bytes.append(static_cast<const char *>(data), size);
        return size;
    }

private:
    std::string & bytes;
};

// Tensors within JSON, which no model has that is loaded here.
struct Base64InStream : BytesInStream {
    explicit Base64InStream(Stream *) : BytesInStream(std::string()) {}
    void InitPosition() { TVM_FFI_THROW(RuntimeError) << "tensors in JSON cannot be read here"; }
};
struct Base64OutStream : BytesOutStream {
    explicit Base64OutStream(Stream *) : BytesOutStream(&none) {}
    void Finish() { TVM_FFI_THROW(RuntimeError) << "tensors in JSON cannot be written here"; }
    std::string none;
};

inline bool IsNumber(const std::string & text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char each) { return std::isdigit(each); });
}

// Marks of NVIDIA's profiler.
struct NVTXScopedRange {
    explicit NVTXScopedRange(const std::string &) {}
};

}  // namespace tvm::support
