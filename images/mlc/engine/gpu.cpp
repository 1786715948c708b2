#include "gpu.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace melt {
namespace {

namespace fs = std::filesystem;
constexpr int64_t cpu = 1, sequence = 0, page = 16;

#ifndef MELT_LINKED
// The folder of the trial's files, the only one that can be written in a sandbox: that of the last argument.
fs::path writable() {
    std::ifstream arguments("/proc/self/cmdline", std::ios::binary);
    std::string last;
    for (std::string each; std::getline(arguments, each, '\0');) {
        last = each;
    }
    return fs::absolute(fs::path(last)).parent_path();
}
#endif

}  // namespace

Gpu::Gpu(const Tvm & tvm, [[maybe_unused]] int64_t threads) : tvm(tvm) {
#ifndef MELT_LINKED  // else it is a part of the program, and the driver the device's
    void * library = dlopen("libmelt-opencl.so", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        throw Failure(ExitCode::model, std::string("the bundle's OpenCL cannot be loaded: ") + dlerror());
    }
    // A driver that the bundle brings along compiles kernels with the bundle's linker, in a folder of its own.
    char lib[4096] = {};
    dlinfo(library, RTLD_DI_ORIGIN, lib);
    const std::string driver = std::string(lib) + "/opencl/libpocl.so.2";
    std::error_code none;
    if (fs::exists(driver, none)) {
        scratch = (writable() / "scratch").string();  // removed with the trial where this is killed
        if (!fs::create_directory(scratch, none) && none) {
            throw Failure(ExitCode::model, "OpenCL's driver needs a folder to compile in, and " + scratch + " cannot be made: " + none.message());
        }
        setenv("OCL_ICD_VENDORS", driver.c_str(), 1);
        setenv("POCL_CACHE_DIR", scratch.c_str(), 1);
        setenv("LIBRARY_PATH", (std::string(lib) + "/opencl/none").c_str(), 1);
        // It would look for CPUs and memory in /sys, which sandboxes may not have, and end the program.
        const auto memory = std::to_string(int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE));
        setenv("HWLOC_SYNTHETIC", ("[numa(memory=" + memory + ")] core:" + std::to_string(threads) + " pu:1").c_str(), 1);
        setenv("HWLOC_THISSYSTEM", "1", 1);
        setenv("POCL_MAX_PTHREAD_COUNT", std::to_string(threads).c_str(), 1);
        setenv("PATH", (std::string(lib) + "/../bin").c_str(), 1);
    }
#endif
    check(ExitCode::model);
}

Gpu::~Gpu() {
    std::error_code none;
    if (!scratch.empty()) {
        fs::remove_all(scratch, none);
    }
}

void Gpu::open(const Value & machine, const Value & weights, const Setup & setup) {
    constexpr auto step = ExitCode::context;
    const int64_t context = setup.context, batch = std::min(setup.batch, setup.context);
    cache = tvm.call(tvm.method(machine, "create_cache"), {shape({int64_t{1}}), shape({context}), shape({batch}), shape({page}), shape({int64_t{0}})}, step);
    tvm.call(tvm.function("vm.builtin.kv_state_add_sequence"), {cache, sequence}, step);
    check(step);
    for (const bool one : {false, true}) {
        compute(tvm.method(machine, one ? "decode" : "prefill"), std::vector<Token>(one ? 1 : static_cast<size_t>(batch)), weights, step);
        clear(step);
    }
}

Value Gpu::compute(const Value & function, const std::vector<Token> & tokens, const Value & weights, ExitCode step) const {
    std::vector<Token> ids = tokens;
    const auto count = static_cast<int64_t>(ids.size());
    const Value to_device = tvm.function("vm.builtin.to_device");
    const Value given = tvm.call(to_device, {tvm.tensor(ids.data(), {1, count}, ElementType::int32, step), kind, int64_t{0}}, step);
    tvm.call(tvm.function("vm.builtin.kv_state_begin_forward"), {cache, shape({sequence}), shape({count})}, step);
    const Value both = tvm.call(function, {given, cache, weights}, step);
    const Value logits = tvm.call(tvm.function("ffi.ArrayGetItem"), {both, int64_t{0}}, step);
    const Value here = tvm.call(to_device, {logits, cpu, int64_t{0}}, step);
    tvm.call(tvm.function("vm.builtin.kv_state_end_forward"), {cache}, step);
    check(step);
    return here;
}

void Gpu::clear(ExitCode step) const {
    tvm.call(tvm.function("vm.builtin.kv_state_clear"), {cache}, step);
    tvm.call(tvm.function("vm.builtin.kv_state_add_sequence"), {cache, sequence}, step);
}

void Gpu::describe(Json::Object & facts) const {
    for (const auto & [name, what] : {std::pair{"device", "device"}, {"device_kind", "kind"}, {"driver", "driver"}, {"platform", "platform"}}) {
        facts.emplace_back(name, about(what));
    }
}

std::string Gpu::about(const char * what) const { return tvm.call(tvm.function("melt.opencl.about"), {what}, ExitCode::model).string(); }

Value Gpu::shape(std::vector<Value> sizes) const { return tvm.call(tvm.function("ffi.Shape"), sizes, ExitCode::context); }

void Gpu::check(ExitCode step) const {
    if (const std::string why = about("error"); !why.empty()) {
        throw Failure(step, "OpenCL: " + why);
    }
}

}  // namespace melt
