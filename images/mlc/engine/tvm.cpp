#include "tvm.h"

#include <dlfcn.h>

#include <memory>

namespace melt {
namespace {

struct Bytes {
    const char * data;
    size_t size;
};

// What every object begins with; what is its own follows.
struct Object {
    uint64_t references;
    int32_t type;
    uint32_t padding;
    void (*deleter)(void *, int);
};

struct Error {
    Bytes kind, message;
};

// DLPack's tensor, and who owns it.
struct Tensor {
    void * data;
    int32_t device, device_id;
    int32_t dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t * shape;
    int64_t * strides;
    uint64_t byte_offset;
};
struct ManagedTensor {
    Tensor tensor;
    void * context;
    void (*deleter)(ManagedTensor *);
};
struct OwnTensor : ManagedTensor {
    std::vector<int64_t> shape;
};

constexpr int32_t cpu = 1, small_text = 11, text_object = 65, function_object = 68, tensor_object = 70;

template <typename T>
const T * content(const void * object) {
    return reinterpret_cast<const T *>(static_cast<const char *>(object) + sizeof(Object));
}

int (*add_reference)(void *);
int (*drop_reference)(void *);

void * open(const char * library) {
#ifdef MELT_LINKED
    library = nullptr;  // a part of the program
#endif
    // Global, so that models find what they call; the runner itself is linked already, with a C++ library of its own.
    void * handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    if (handle == nullptr) {
        throw Failure(ExitCode::model, std::string("TVM cannot be loaded: ") + dlerror());
    }
    return handle;
}

int watch(void * self, const Value * arguments, int32_t count, Value * result) {
    if (count >= 3) {
        (*static_cast<Tvm::Watcher *>(self))(arguments[1].string(), arguments[2].number() != 0);
    }
    *result = Value(int64_t{0});
    return 0;
}

}  // namespace

Value::Value(const Value & other) : type(other.type), padding(other.padding), integer(other.integer) {
    if (counted()) {
        add_reference(object);
    }
}

Value & Value::operator=(Value && other) noexcept {
    std::swap(type, other.type);
    std::swap(padding, other.padding);
    std::swap(integer, other.integer);
    return *this;
}

Value::~Value() {
    if (counted()) {
        drop_reference(object);
    }
}

const void * Value::data() const {
    const Tensor * tensor = content<Tensor>(object);
    return static_cast<const char *>(tensor->data) + tensor->byte_offset;
}

std::string Value::string() const {
    if (type == small_text) {
        return {letters, padding};
    }
    if (type == text_object) {
        const Bytes * bytes = content<Bytes>(object);
        return {bytes->data, bytes->size};
    }
    return type == Value("").type ? text : "";
}

Tvm::Tvm() {
    void * ffi = open("libtvm_ffi.so");
    const auto take = [ffi](auto & function, const char * name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(ffi, name));
        if (function == nullptr) {
            throw Failure(ExitCode::model, std::string("TVM has no ") + name);
        }
    };
    take(add_reference, "TVMFFIObjectIncRef");
    take(drop_reference, "TVMFFIObjectDecRef");
    take(get_global, "TVMFFIFunctionGetGlobal");
    take(call_function, "TVMFFIFunctionCall");
    take(take_error, "TVMFFIErrorMoveFromRaised");
    take(of_dlpack, "TVMFFITensorFromDLPack");
    take(create_function, "TVMFFIFunctionCreate");
    open("libtvm_runtime.so");
}

Value Tvm::function(const char * name) const {
    const Bytes bytes{name, std::char_traits<char>::length(name)};
    Value found;
    if (get_global(&bytes, &found.object) != 0 || found.object == nullptr) {
        throw Failure(ExitCode::model, std::string("TVM has no function ") + name);
    }
    found.type = function_object;
    return found;
}

Value Tvm::method(const Value & module, const char * name) const {
    Value found = call(function("ffi.ModuleGetFunction"), {module, name, int64_t{1}}, ExitCode::model);
    if (found.empty()) {
        throw Failure(ExitCode::model, std::string("the model's code has no function ") + name);
    }
    return found;
}

Value Tvm::call(const Value & function, const std::vector<Value> & arguments, ExitCode code) const {
    Value result;
    check(call_function(function.object, arguments.data(), static_cast<int32_t>(arguments.size()), &result), code);
    return result;
}

Value Tvm::tensor(void * data, std::vector<int64_t> shape, ElementType type, ExitCode code) const {
    auto own = std::make_unique<OwnTensor>();
    own->shape = std::move(shape);
    own->tensor = {data, cpu, 0, static_cast<int32_t>(own->shape.size()), static_cast<uint8_t>(type), 32, 1, own->shape.data(), nullptr, 0};
    own->context = nullptr;
    own->deleter = [](ManagedTensor * self) { delete static_cast<OwnTensor *>(self); };
    Value made;
    check(of_dlpack(own.get(), 0, 0, &made.object), code);
    own.release();
    made.type = tensor_object;
    return made;
}

Value Tvm::callback(Watcher & watcher) const {
    Value made;
    check(create_function(&watcher, watch, nullptr, &made.object), ExitCode::context);
    made.type = function_object;
    return made;
}

void Tvm::check(int status, ExitCode code) const {
    if (status != 0) {
        Value raised;
        take_error(&raised.object);
        std::string message = "an error without a message";
        if (raised.object != nullptr) {
            raised.type = text_object;  // any object: it is let go of
            const Error * error = content<Error>(raised.object);
            message = std::string(error->message.data, error->message.size);
        }
        throw Failure(code, "TVM: " + message.substr(0, message.find('\n')));
    }
}

}  // namespace melt
