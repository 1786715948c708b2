// STAND-IN for the headers of Qualcomm's Hexagon SDK: names alone, as far as llama.cpp uses them, with values and orders made up.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef int AEEResult;
enum { AEE_SUCCESS, AEE_EOFFSET, AEE_EEXPIRED, AEE_EWOULDBLOCK, AEE_EUNABLETOLOAD, AEE_EUNSUPPORTEDAPI };

typedef struct { int id; const char * uri; } domain;
static domain supported_domains[1];
#define CDSP_DOMAIN_ID 0
#define CDSP_DOMAIN_NAME ""

typedef uint32_t remote_handle;
typedef uint64_t remote_handle64;
typedef struct remote_arg remote_arg;
enum { FASTRPC_RESERVE_NEW_SESSION, FASTRPC_GET_EFFECTIVE_DOMAIN_ID, FASTRPC_GET_URI, FASTRPC_GET_DOMAINS, FASTRPC_NSP };
enum { DSPRPC_CONTROL_LATENCY, DSPRPC_CONTROL_UNSIGNED_MODULE, DSPRPC_GET_DSP_INFO, ARCH_VER, RPC_PM_QOS };
enum fastrpc_map_flags { FASTRPC_MAP_FD, FASTRPC_MAP_FD_DELAYED, FASTRPC_MAP_FD_DELAYED_EXTENDED };
#define DOMAINS_LIST_FLAGS_SET_TYPE(flags, type) ((flags) | (type))
struct remote_rpc_reserve_new_session { char * domain_name; uint32_t domain_name_len; char * session_name; uint32_t session_name_len, effective_domain_id, session_id; };
struct remote_rpc_effective_domain_id { char * domain_name; uint32_t domain_name_len, session_id, effective_domain_id; };
struct remote_rpc_control_unsigned_module { int domain, enable; };
struct remote_rpc_control_latency { uint32_t enable, latency; };
struct remote_rpc_get_uri { char * domain_name; uint32_t domain_name_len, session_id; char * module_uri; uint32_t module_uri_len; char * uri; uint32_t uri_len; };
struct remote_dsp_capability { uint32_t domain, attribute_ID, capability; };
typedef struct { int id; char name[64]; int type, status, instance_id; } fastrpc_domain;
typedef struct { int id; struct { fastrpc_domain * domains; int max_domains, num_domains; uint64_t flags; } sys; } system_req_payload;

enum { DSPQUEUE_BUFFER_FLAG_FLUSH_SENDER = 1, DSPQUEUE_BUFFER_FLAG_INVALIDATE_RECIPIENT = 2 };
typedef struct dspqueue * dspqueue_t;
typedef void (*dspqueue_callback_t)(dspqueue_t queue, AEEResult error, void * context);
struct dspqueue_buffer { uint32_t fd, size, offset, flags; void * ptr; };
enum { RPCMEM_HEAP_ID_SYSTEM, RPCMEM_DEFAULT_FLAGS };

#ifdef __cplusplus
extern "C" {
#endif
void * rpcmem_alloc(int heap, uint32_t flags, int size);
void * rpcmem_alloc2(int heap, uint32_t flags, size_t size);
void rpcmem_free(void * memory);
int rpcmem_to_fd(void * memory);
int remote_handle_control(uint32_t what, void * data, uint32_t size);
int remote_handle64_control(remote_handle64 handle, uint32_t what, void * data, uint32_t size);
int remote_session_control(uint32_t what, void * data, uint32_t size);
int fastrpc_mmap(int domain, int fd, void * address, int offset, size_t length, enum fastrpc_map_flags flags);
int fastrpc_munmap(int domain, int fd, void * address, size_t length);
AEEResult dspqueue_create(int, uint32_t, uint32_t, uint32_t, dspqueue_callback_t, dspqueue_callback_t, void *, dspqueue_t *);
AEEResult dspqueue_close(dspqueue_t);
AEEResult dspqueue_export(dspqueue_t, uint64_t *);
AEEResult dspqueue_write(dspqueue_t, uint32_t, uint32_t, struct dspqueue_buffer *, uint32_t, const uint8_t *, uint32_t);
AEEResult dspqueue_read(dspqueue_t, uint32_t *, uint32_t, uint32_t *, struct dspqueue_buffer *, uint32_t, uint32_t *, uint8_t *, uint32_t);

// What the SDK makes of llama.cpp's htp_iface.idl.
typedef struct { uint32_t events[8]; } htp_iface_pmu_conf;
int htp_iface_open(const char * uri, remote_handle64 * handle);
int htp_iface_close(remote_handle64 handle);
AEEResult htp_iface_start(remote_handle64 handle, uint32_t session, uint64_t queue, uint32_t hvx, uint32_t hmx, uint64_t memory);
AEEResult htp_iface_stop(remote_handle64 handle);
AEEResult htp_iface_mmap(remote_handle64 handle, uint32_t fd, uint64_t size);
AEEResult htp_iface_munmap(remote_handle64 handle, uint32_t fd);
AEEResult htp_iface_profiler(remote_handle64 handle, uint32_t mode, const htp_iface_pmu_conf * conf);
AEEResult htp_iface_etm(remote_handle64 handle, uint32_t enable);
AEEResult htp_iface_hwinfo(remote_handle64 handle, uint32_t * threads, uint32_t * hvx, uint32_t * hmx, unsigned long long * memory);
#ifdef __cplusplus
}
#endif
