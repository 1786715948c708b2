// Before every C++ file of the app: the runner's CLOCK_MONOTONIC becomes the clock of mach_absolute_time.
//
// Darwin's own CLOCK_MONOTONIC has microseconds and follows corrections of the time of day, and no host can read it. This
// one stands still only while the phone sleeps, which it does not while the app is in front, and developer services tell
// it (machTimeInfo). NOT YET RUN ON APPLE HARDWARE.
#ifdef __cplusplus
#include <unistd.h>

#include <ctime>
#undef CLOCK_MONOTONIC
#define CLOCK_MONOTONIC CLOCK_UPTIME_RAW
inline int fdatasync(int file) { return fsync(file); }  // Darwin declares none
#endif
