// memory.cpp of the runner for Apple's kernel, which has no /proc. NOT YET RUN ON APPLE HARDWARE.

#include "../../llama.cpp/runner/memory.h"

#include <mach/mach.h>

namespace melt {

Events::Fields memory_fields(const char * phase) {
    Events::Fields fields{{"phase", phase}, {"rss_anon", nullptr}, {"rss_file", nullptr}, {"hwm", nullptr}, {"swap", nullptr}};
    task_vm_info_data_t info{};
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) == KERN_SUCCESS) {
        fields["rss_anon"] = info.internal;
        fields["rss_file"] = info.external;
        fields["hwm"] = info.resident_size_peak;
        fields["swap"] = info.compressed;  // in memory, but packed; there is no other swap
    }
    return fields;
}

}  // namespace melt
