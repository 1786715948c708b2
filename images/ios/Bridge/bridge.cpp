// NOT YET RUN ON APPLE HARDWARE.

#include "bridge.h"

#include <ctime>
#include <mach/mach.h>
#include <TargetConditionals.h>
#if TARGET_OS_IPHONE
#include <os/proc.h>
#endif

int melt_runner_main(int argc, char ** argv);  // main of the runner, by another name (project.yml)

namespace {

int64_t nanoseconds(clockid_t clock) { return static_cast<int64_t>(clock_gettime_nsec_np(clock)); }

}  // namespace

int melt_run(const char * request_path, const char * events_path) {
    char name[] = "melt-runner";
    char * arguments[] = {name, const_cast<char *>(request_path), const_cast<char *>(events_path), nullptr};
    return melt_runner_main(3, arguments);
}

uint64_t melt_footprint() {
    task_vm_info_data_t info{};
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    const kern_return_t status =
        task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count);
    return status == KERN_SUCCESS ? info.phys_footprint : 0;
}

uint64_t melt_available() {
#if TARGET_OS_IPHONE
    return os_proc_available_memory();
#else
    return 0;
#endif
}

int64_t melt_clock_ns() { return nanoseconds(CLOCK_UPTIME_RAW); }

int64_t melt_thread_ns() { return nanoseconds(CLOCK_THREAD_CPUTIME_ID); }
