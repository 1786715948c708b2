// What Swift needs of the runner and of the kernel. NOT YET RUN ON APPLE HARDWARE.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The runner of docs/runner.md; returns its exit status.
int melt_run(const char * request_path, const char * events_path);

// Bytes that this process is charged for; when they are too many, it is killed. 0 where the kernel does not tell.
uint64_t melt_footprint(void);

// Bytes that it may still take before that. 0 where the kernel does not tell.
uint64_t melt_available(void);

// The clock of every time in a record: mach_absolute_time in nanoseconds.
int64_t melt_clock_ns(void);

// CPU time of the calling thread in nanoseconds.
int64_t melt_thread_ns(void);

#ifdef __cplusplus
}
#endif
