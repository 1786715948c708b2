// Tells the NPU's driver where the bundle's libraries for it lie: `lib` beside bin/ in a bundle, and beside the program itself in a job's
// folder, by the name under which it was started (as images/prebuilt/start.c has it).
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

[[maybe_unused]] const bool told = [] {
    std::string started;
    std::getline(std::ifstream("/proc/self/cmdline") >> std::ws, started, '\0');
    const std::string folder = started.substr(0, started.rfind('/') + 1);
    return setenv("ADSP_LIBRARY_PATH", (folder + "lib;" + folder + "../lib").c_str(), 1) == 0;
}();

}  // namespace
