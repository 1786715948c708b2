// OpenCL for TVM's runtime, whose wheels have none: one device, buffers in it, and the kernels of a model's code.
//
// TVM calls this through its C++ classes, and was compiled with another C++ library: so nothing is thrown there. What goes wrong is kept,
// and the next kernel that is started, or whoever asks (melt.opencl.about), hears of it.
#include "api.h"

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/runtime/device_api.h>

#include <cstring>
#include <map>
#include <memory>
#include <vector>

namespace melt::opencl {
namespace {

namespace ffi = tvm::ffi;
using tvm::Device;
using tvm::runtime::DeviceAPI;

struct Opencl : DeviceAPI {
    Api api;
    Handle context = nullptr, queue = nullptr, device = nullptr;
    std::map<std::string, std::string> about;  // what it is, and the first `error`

    static Opencl & get() {
        static Opencl * const one = new Opencl;  // lives as long as whatever ends last
        return *one;
    }

    Opencl() {
        if (std::string why = api.load(); !why.empty()) {
            failed(why);
            return;
        }
        // The first GPU, or else the first device at all.
        uint32_t count = 0;
        Handle platforms[16];
        api.GetPlatformIDs(16, platforms, &count);
        for (const uint64_t kind : {gpu_device, all_devices}) {
            for (uint32_t i = 0; i < std::min(count, 16u) && device == nullptr; ++i) {
                uint32_t devices = 0;
                if (api.GetDeviceIDs(platforms[i], kind, 1, &device, &devices) != 0 || devices == 0) {
                    device = nullptr;
                    continue;
                }
                about["platform"] = text([&](auto... out) { return api.GetPlatformInfo(platforms[i], platform_version, out...); });
            }
        }
        if (device == nullptr) {
            failed("there is no device");
            return;
        }
        const auto of_device = [&](uint32_t what) { return text([&](auto... out) { return api.GetDeviceInfo(device, what, out...); }); };
        uint64_t kind = 0;
        api.GetDeviceInfo(device, device_type, sizeof kind, &kind, nullptr);
        about["device"] = of_device(device_name);
        about["driver"] = of_device(driver_version);
        about["kind"] = kind & gpu_device ? "gpu" : kind & cpu_device ? "cpu" : "other";
        about["extensions"] = of_device(device_extensions);
        int32_t status = 0;
        context = api.CreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
        if (check(status, "a context")) {
            queue = api.CreateCommandQueue(context, device, 0, &status);
            check(status, "a queue");
        }
    }

    template <typename Ask>
    static std::string text(Ask ask) {
        size_t size = 0;
        ask(size_t{0}, static_cast<void *>(nullptr), &size);
        std::string found(size, '\0');
        ask(size, static_cast<void *>(found.data()), static_cast<size_t *>(nullptr));
        return found.c_str();
    }

    void failed(const std::string & why) { about.emplace("error", why); }

    bool check(int32_t status, const std::string & what) {
        if (status != 0) {
            failed(what + " failed with OpenCL's error " + std::to_string(status));
        }
        return status == 0;
    }

    void SetDevice(Device) final {}

    void GetAttr(Device, tvm::runtime::DeviceAttrKind kind, ffi::Any * result) final {
        if (kind == tvm::runtime::kExist) {
            *result = queue != nullptr;
        }
    }

    void * AllocDataSpace(Device, size_t bytes, size_t, DLDataType) final {
        int32_t status = 0;
        Handle made = queue == nullptr ? nullptr : api.CreateBuffer(context, read_write, std::max<size_t>(bytes, 1), nullptr, &status);
        check(status, "a buffer of " + std::to_string(bytes) + " bytes");
        return made;
    }

    void FreeDataSpace(Device, void * data) final {
        if (data != nullptr) {
            api.ReleaseMemObject(static_cast<Handle>(data));
        }
    }

    void StreamSync(Device, TVMStreamHandle) final {
        if (queue != nullptr) {
            check(api.Finish(queue), "waiting");
        }
    }

    void CopyDataFromTo(const void * from, size_t from_offset, void * to, size_t to_offset, size_t size, Device source, Device target, DLDataType,
                        TVMStreamHandle) final {
        const auto ours = [](Device each) { return each.device_type == kDLOpenCL; };
        const auto in = static_cast<Handle>(const_cast<void *>(from)), out = static_cast<Handle>(to);
        if (size == 0 || queue == nullptr) {
            return;
        }
        if (ours(source) && ours(target)) {
            check(api.EnqueueCopyBuffer(queue, in, out, from_offset, to_offset, size, 0, nullptr, nullptr), "a copy");
        } else if (ours(source)) {
            check(api.EnqueueReadBuffer(queue, in, 1, from_offset, size, static_cast<char *>(to) + to_offset, 0, nullptr, nullptr), "a read");
        } else {
            // Waited for: whoever calls may use its memory again.
            check(api.EnqueueWriteBuffer(queue, out, 1, to_offset, size, static_cast<const char *>(from) + from_offset, 0, nullptr, nullptr), "a write");
        }
    }
};

// A kernel, compiled when it is first started.
struct Kernel {
    std::string name;
    std::vector<DLDataType> types;
    std::vector<int> sizes;  // of what follows the arguments: 0 to 2 groups, 3 to 5 threads of a group
    std::string source;
    Handle made = nullptr;

    void make(Opencl & cl) {
        if (source.find("cl_khr_fp16") != std::string::npos && cl.about["extensions"].find("cl_khr_fp16") == std::string::npos) {
            TVM_FFI_THROW(RuntimeError) << "OpenCL's device " << cl.about["device"] << " knows no floats of 16 bits, which the model has";
        }
        const char * text = source.c_str();
        int32_t status = 0;
        Handle program = cl.api.CreateProgramWithSource(cl.context, 1, &text, nullptr, &status);
        if (status != 0 || cl.api.BuildProgram(program, 1, &cl.device, "", nullptr, nullptr) != 0) {
            const std::string log = Opencl::text([&](auto... out) { return cl.api.GetProgramBuildInfo(program, cl.device, build_log, out...); });
            TVM_FFI_THROW(RuntimeError) << "OpenCL cannot compile " << name << ": " << log.substr(0, log.find('\n'));
        }
        made = cl.api.CreateKernel(program, name.c_str(), &status);
        if (!cl.check(status, "kernel " + name)) {
            made = nullptr;
        }
    }

    void start(const TVMFFIAny * arguments, int32_t count) {
        Opencl & cl = Opencl::get();
        if (made == nullptr && !cl.about.count("error")) {
            make(cl);
        }
        if (cl.about.count("error")) {
            TVM_FFI_THROW(RuntimeError) << "OpenCL: " << cl.about["error"];
        }
        if (static_cast<size_t>(count) != types.size() + sizes.size()) {
            TVM_FFI_THROW(RuntimeError) << name << " takes other arguments";
        }
        for (uint32_t i = 0; i < types.size(); ++i) {
            const TVMFFIAny & each = arguments[i];
            const auto number = static_cast<float>(each.v_float64);
            const bool is_float = types[i].code == kDLFloat;
            const void * place = is_float ? static_cast<const void *>(&number) : static_cast<const void *>(&each.v_int64);
            cl.check(cl.api.SetKernelArg(made, i, types[i].code == kDLOpaqueHandle ? sizeof(Handle) : types[i].bits / 8, place), name);
        }
        size_t work[6] = {1, 1, 1, 1, 1, 1};
        for (size_t i = 0; i < sizes.size(); ++i) {
            work[sizes[i]] = static_cast<size_t>(arguments[types.size() + i].v_int64);
        }
        const size_t all[] = {work[0] * work[3], work[1] * work[4], work[2] * work[5]};
        if (all[0] * all[1] * all[2] > 0) {
            cl.check(cl.api.EnqueueNDRangeKernel(cl.queue, made, 3, nullptr, all, work + 3, 0, nullptr, nullptr), name);
        }
    }

    static int call(void * self, const TVMFFIAny * arguments, int32_t count, TVMFFIAny *) {
        TVM_FFI_SAFE_CALL_BEGIN();
        static_cast<Kernel *>(self)->start(arguments, count);
        TVM_FFI_SAFE_CALL_END();
    }
};

// The kernels of a model: as TVM's compiler writes them, their arguments by name, and one source with all of them.
struct Kernels : ffi::ModuleObj {
    std::map<std::string, Kernel> kernels;

    const char * kind() const final { return "opencl"; }
    int GetPropertyMask() const final { return ffi::Module::kRunnable; }

    // Functions live as long as the model's code, and that as long as what it imports.
    ffi::Optional<ffi::Function> GetFunction(const ffi::String & name) final {
        const auto found = kernels.find(std::string(name.data(), name.size()));
        if (found == kernels.end()) {
            return std::nullopt;
        }
        return ffi::Function::FromExternC(&found->second, Kernel::call, nullptr);
    }
};

struct Reader {
    const char * place;
    const char * end;

    const char * take(uint64_t size) {
        if (size > static_cast<uint64_t>(end - place)) {
            TVM_FFI_THROW(RuntimeError) << "the model's OpenCL kernels are damaged";
        }
        return std::exchange(place, place + size);
    }
    template <typename Number>
    Number number() {
        Number found;
        std::memcpy(&found, take(sizeof found), sizeof found);
        return found;
    }
    std::string text() {
        const auto size = number<uint64_t>();
        return {take(size), size};
    }
    template <typename Each>
    void many(Each each) {
        for (auto left = number<uint64_t>(); left > 0; --left) {
            each();
        }
    }
};

ffi::Module read(const char * data, size_t size) {
    Reader in{data, data + size};
    auto module = ffi::make_object<Kernels>();
    in.text();  // a format's name
    in.many([&] {
        Kernel & kernel = module->kernels[in.text()];
        kernel.name = in.text();
        in.many([&] { kernel.types.push_back(in.number<DLDataType>()); });
        in.many([&] {
            const std::string tag = in.text();
            const int dimension = tag.back() - 'x';
            if (dimension < 0 || dimension > 2 || (tag.compare(0, 9, "blockIdx.") != 0 && tag.compare(0, 10, "threadIdx.") != 0)) {
                TVM_FFI_THROW(RuntimeError) << "OpenCL's kernel " << kernel.name << " is started by " << tag << ", which is not known here";
            }
            kernel.sizes.push_back(dimension + (tag[0] == 't' ? 3 : 0));
        });
        in.many([&] { in.number<int32_t>(); });
    });
    const std::string source = in.text(), mark = "// Function: ";
    for (size_t begin = source.find(mark); begin != std::string::npos;) {
        const size_t line = source.find('\n', begin), next = source.find(mark, line);
        const auto found = module->kernels.find(source.substr(begin + mark.size(), line - begin - mark.size()));
        if (found != module->kernels.end()) {
            found->second.source = source.substr(line, next - line);
        }
        begin = next;
    }
    return ffi::Module(module);
}

template <typename Do>
int safely(TVMFFIAny * result, Do what) {
    TVM_FFI_SAFE_CALL_BEGIN();
    *reinterpret_cast<ffi::Any *>(result) = what();
    TVM_FFI_SAFE_CALL_END();
}

int device_api(void *, const TVMFFIAny *, int32_t, TVMFFIAny * result) {
    return safely(result, [] { return static_cast<void *>(static_cast<DeviceAPI *>(&Opencl::get())); });
}

int load(void *, const TVMFFIAny * arguments, int32_t, TVMFFIAny * result) {
    return safely(result, [&] {
        const auto bytes = reinterpret_cast<const ffi::AnyView *>(arguments)->cast<ffi::Bytes>();
        return read(bytes.data(), bytes.size());
    });
}

int about(void *, const TVMFFIAny * arguments, int32_t, TVMFFIAny * result) {
    return safely(result, [&] {
        const auto key = reinterpret_cast<const ffi::AnyView *>(arguments)->cast<ffi::String>();
        const auto & known = Opencl::get().about;
        const auto found = known.find(std::string(key.data(), key.size()));
        return ffi::String(found == known.end() ? "" : found->second);
    });
}

const bool registered = [] {
    ffi::Function::SetGlobal("device_api.opencl", ffi::Function::FromExternC(nullptr, device_api, nullptr));
    ffi::Function::SetGlobal("ffi.Module.load_from_bytes.opencl", ffi::Function::FromExternC(nullptr, load, nullptr));
    ffi::Function::SetGlobal("melt.opencl.about", ffi::Function::FromExternC(nullptr, about, nullptr));
    return true;
}();

}  // namespace
}  // namespace melt::opencl
