// STAND-IN for what the SDK makes of llama.cpp's htp_iface.idl: nothing answers.
#include "htp_iface.h"

#define MELT_UNANSWERED(name, ...) AEEResult name(__VA_ARGS__) { return AEE_EUNSUPPORTEDAPI; }
MELT_UNANSWERED(htp_iface_open, const char * uri, remote_handle64 * handle)
MELT_UNANSWERED(htp_iface_close, remote_handle64 handle)
MELT_UNANSWERED(htp_iface_start, remote_handle64 handle, uint32_t session, uint64_t queue, uint32_t hvx, uint32_t hmx, uint64_t memory)
MELT_UNANSWERED(htp_iface_stop, remote_handle64 handle)
MELT_UNANSWERED(htp_iface_mmap, remote_handle64 handle, uint32_t fd, uint64_t size)
MELT_UNANSWERED(htp_iface_munmap, remote_handle64 handle, uint32_t fd)
MELT_UNANSWERED(htp_iface_profiler, remote_handle64 handle, uint32_t mode, const htp_iface_pmu_conf * conf)
MELT_UNANSWERED(htp_iface_etm, remote_handle64 handle, uint32_t enable)
MELT_UNANSWERED(htp_iface_hwinfo, remote_handle64 handle, uint32_t * threads, uint32_t * hvx, uint32_t * hmx, unsigned long long * memory)
