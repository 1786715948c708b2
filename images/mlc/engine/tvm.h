// What the engine calls of TVM, by the C interface of its libraries alone: functions by name, values that are counted, errors as they
// were raised. Declared here as far as it is used; the layouts are those of tvm-ffi 0.1.
#pragma once

#include "failure.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace melt {

enum class ElementType : uint8_t { int32 = 0, float32 = 2 };

// A value of a call: a number or text of ours, or an object, which whoever has the value has a share of.
class Value {
public:
    Value() = default;
    Value(int64_t number) : type(1), integer(number) {}
    Value(const char * text) : type(8), text(text) {}  // lives as long as the call
    Value(Value && other) noexcept : type(other.type), padding(other.padding), integer(other.integer) { other.type = 0; }
    Value & operator=(Value && other) noexcept;
    Value(const Value & other);
    Value & operator=(const Value &) = delete;
    ~Value();

    // The numbers of a tensor.
    const void * data() const;
    bool empty() const { return type == 0; }
    int64_t number() const { return integer; }
    // A text, however it is stored.
    std::string string() const;

private:
    friend class Tvm;
    bool counted() const { return type >= 64; }

    int32_t type = 0;
    uint32_t padding = 0;  // length of a short text
    union {
        int64_t integer = 0;
        const char * text;
        void * object;
        char letters[8];
    };
};

class Tvm {
public:
    // Load the libraries, by the names under which the loader finds them: Failure(model).
    Tvm();

    // A function that TVM registers, or one of a module.
    Value function(const char * name) const;
    Value method(const Value & module, const char * name) const;
    // Throws a Failure with what was raised.
    Value call(const Value & function, const std::vector<Value> & arguments, ExitCode code) const;
    // A tensor over memory of ours, which outlives it.
    Value tensor(void * data, std::vector<int64_t> shape, ElementType type, ExitCode code) const;
    // A function of ours, which gets the name of what is called, and whether that is still to come.
    using Watcher = std::function<void(const std::string & name, bool before)>;
    Value callback(Watcher & watcher) const;

    std::string version;  // of tvm-ffi

private:
    void check(int status, ExitCode code) const;

    int (*get_global)(const void * name, void ** out);
    int (*call_function)(void * function, const Value * arguments, int32_t count, Value * result);
    void (*take_error)(void ** error);
    int (*of_dlpack)(void * from, int32_t alignment, int32_t contiguous, void ** out);
    int (*create_function)(void * self, int (*call)(void *, const Value *, int32_t, Value *), void (*deleter)(void *), void ** out);
};

}  // namespace melt
