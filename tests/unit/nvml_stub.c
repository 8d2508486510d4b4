/* An NVML for tests. Which one is decided when it is compiled:
 * OLD: without functions that pynvml begins with; NO_DRIVER, MISMATCH: init fails so;
 * UNIFIED: memory and limits are not supported, as on GB10; else one card with a process.
 */
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, SMALL = 7, NOT_LOADED = 9, VERSION = 18 };
typedef unsigned int u;
typedef unsigned long long ull;

static int text(char *to, u size, const char *from) {
  strncpy(to, from, size);
  return SUCCESS;
}
const char *nvmlErrorString(int code) { return "see the code"; }
int nvmlShutdown(void) { return SUCCESS; }

#ifndef OLD
int nvmlInitWithFlags(u flags) {
#if defined NO_DRIVER
  return NOT_LOADED;
#elif defined MISMATCH
  return VERSION;
#else
  return SUCCESS;
#endif
}
int nvmlDeviceGetCount_v2(u *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(u index, void **device) { *device = (void *)7; return SUCCESS; }
int nvmlDeviceGetName(void *d, char *to, u size) {
#ifdef UNIFIED
  return text(to, size, "NVIDIA GB10");
#else
  return text(to, size, "NVIDIA H100 NVL");
#endif
}
int nvmlDeviceGetUUID(void *d, char *to, u size) { return text(to, size, "GPU-1"); }
int nvmlSystemGetDriverVersion(char *to, u size) { return text(to, size, "580.95.05"); }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13000; return SUCCESS; }
int nvmlSystemGetProcessName(u pid, char *to, u size) { return NO_PERMISSION; }
struct memory { ull total, free, used; };
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) {
#ifdef UNIFIED
  return NOT_SUPPORTED;
#else
  m->total = 95830ULL << 20;
  m->used = 86412ULL << 20;
  m->free = m->total - m->used;
  return SUCCESS;
#endif
}
struct bar1 { ull total, free, used; };
int nvmlDeviceGetBAR1MemoryInfo(void *d, struct bar1 *m) {
#ifdef UNIFIED
  return NOT_SUPPORTED;
#else
  m->total = 131072ULL << 20;
  return SUCCESS;
#endif
}
struct rates { u gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *d, struct rates *r) { r->gpu = 41; r->memory = 9; return SUCCESS; }
int nvmlDeviceGetTemperature(void *d, int sensor, u *t) { *t = 45; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *d, u *p) { *p = 64870; return SUCCESS; }
int nvmlDeviceGetPowerManagementLimit(void *d, u *p) {
#ifdef UNIFIED
  return NOT_SUPPORTED;
#else
  *p = 400000;
  return SUCCESS;
#endif
}
int nvmlDeviceGetClockInfo(void *d, int kind, u *mhz) { *mhz = kind == 0 ? 1785 : 2619; return SUCCESS; }
int nvmlDeviceGetEccMode(void *d, u *now, u *then) { *now = 1; *then = 0; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *d, int kind, int counter, ull *n) { *n = kind == 0 ? 2 : 0; return SUCCESS; }
int nvmlDeviceGetComputeMode(void *d, u *mode) { *mode = 3; return SUCCESS; }
int nvmlDeviceGetPersistenceMode(void *d, u *on) { *on = 1; return SUCCESS; }
int nvmlDeviceGetPerformanceState(void *d, int *state) { *state = 0; return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(void *d, ull *bits) { *bits = 0x5; return SUCCESS; }
struct process { u pid; ull memory; u gi, ci; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, u *count, struct process *list) {
  if (list == 0) {
    *count = 1;
    return SMALL;
  }
  *count = 1;
  list[0].pid = 1;
  list[0].memory = 86390ULL << 20;
  return SUCCESS;
}
#endif
