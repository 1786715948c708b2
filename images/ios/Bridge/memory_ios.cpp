// memory.cpp of the runner for Apple's kernel, which has no /proc. NOT YET RUN ON APPLE HARDWARE.

#include "../../runner/memory.h"

#include <mach/mach.h>

namespace melt {

Memory read_memory() {
    Memory memory;
    task_vm_info_data_t info{};
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) == KERN_SUCCESS) {
        memory.rss_anon = info.internal;
        memory.rss_file = info.external;
        memory.hwm = info.resident_size_peak;
        memory.swap = info.compressed;  // in memory, but packed; there is no other swap
    }
    return memory;
}

}  // namespace melt
