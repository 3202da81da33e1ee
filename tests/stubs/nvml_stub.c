/* A libnvidia-ml.so.1 that answers what a test tells it to: the real pynvml runs without a GPU.
 *
 * Values come from the environment, or from lines KEY=VALUE in the file named by STUB_NVML_FILE, which is
 * read at each call and wins: so a test changes what a running program sees. A list "a,b" gives one value
 * for each GPU; its last value stands for the rest.
 *
 *   STUB_NVML_INIT        status of nvmlInit: 0, 4 no permission, 9 driver not loaded, 999 ...
 *   STUB_NVML_COUNT       number of GPUs, 1
 *   STUB_NVML_NAME        list, "Stub GPU"
 *   STUB_NVML_TOTAL_MB    list, 24576 (MiB)
 *   STUB_NVML_USED_MB     list, 1024 (MiB)
 *   STUB_NVML_UTIL        list, 37 (percent)
 *   STUB_NVML_TEMP        list, 55 (degrees Celsius)
 *   STUB_NVML_POWER_MW    list, 71500 (milliwatts)
 *   STUB_NVML_LIMIT_MW    list, 300000 (milliwatts)
 *   STUB_NVML_CAPABILITY  list, "8.9"
 *   STUB_NVML_PROCESSES   list "PID:MIB,PID:MIB" of the compute processes of GPU 0; "PID:?" hides the memory
 *   STUB_NVML_GRAPHICS    the same for graphics processes
 *   STUB_NVML_SLOWED      list, 0 (bit mask of the clock event reasons: 8 hardware, 32 heat, 64 heat by the
 *                         hardware, 128 power brake; 1 idle and 4 power cap are no trouble)
 *   STUB_NVML_OLD         1: a driver before 535, which has the clock event reasons under their old name alone
 *   STUB_NVML_ECC         list, 0 (memory errors that could not be corrected)
 *   STUB_NVML_CLOCK       list, 1980 (MHz of the processors)
 *   STUB_NVML_MAX_CLOCK   list, 1980 (MHz)
 *   STUB_NVML_MIG         list, 0; 1: divided into parts, so that load and processes are not supported
 *   STUB_NVML_XID         list "INDEX:XID", the errors so far: each is reported once to whoever listens
 *   STUB_NVML_UNSUPPORTED list of: name uuid memory utilization temperature power limit capability processes
 *                         slowed ecc clock highest mig
 *   STUB_NVML_DENIED      the same, answered with "no permission"
 *   STUB_NVML_LOST        list of the indices of GPUs that have fallen off the bus
 *   STUB_NVML_DEAD        status that every call but init gives, 0: the driver went away
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15
};

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { void *device; unsigned long long type, data; unsigned int instance[2]; } Event;
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance[2]; } Process;

static const unsigned long long MIB = 1ull << 20;
static int initialized = 0;

static int from_file(const char *key, char *value, size_t size) {
    const char *path = getenv("STUB_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[1024];
    int found = 0;
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) || line[length] != '=') continue;
        line[strcspn(line, "\r\n")] = 0;
        snprintf(value, size, "%s", line + length + 1);
        found = 1;
    }
    fclose(file);
    return found;
}

static void text(const char *key, const char *otherwise, char *value, size_t size) {
    if (from_file(key, value, size)) return;
    const char *set = getenv(key);
    snprintf(value, size, "%s", set ? set : otherwise);
}

static void nth_text(const char *key, const char *otherwise, long index, char *value, size_t size) {
    char all[1024];
    text(key, otherwise, all, sizeof all);
    char *item = all;
    for (; index > 0 && strchr(item, ','); index--) item = strchr(item, ',') + 1;
    item[strcspn(item, ",")] = 0;
    snprintf(value, size, "%s", item);
}

static long long number(const char *key, const char *otherwise, long index) {
    char value[64];
    nth_text(key, otherwise, index, value, sizeof value);
    return atoll(value);
}

static int lists(const char *key, const char *word) {
    char all[1024], *rest = all, *item;
    text(key, "", all, sizeof all);
    while ((item = strsep(&rest, ","))) if (*item && !strcmp(item, word)) return 1;
    return 0;
}

static long index_of(void *handle) { return (long)handle - 1; }

static int status_of(void *handle, const char *field) {
    char index[32];
    int dead = (int)number("STUB_NVML_DEAD", "0", 0);
    if (!initialized) return UNINITIALIZED;
    if (dead) return dead;
    snprintf(index, sizeof index, "%ld", index_of(handle));
    if (lists("STUB_NVML_LOST", index)) return GPU_IS_LOST;
    if (number("STUB_NVML_MIG", "0", index_of(handle)) && (!strcmp(field, "utilization") || !strcmp(field, "processes")))
        return NOT_SUPPORTED;
    if (lists("STUB_NVML_UNSUPPORTED", field)) return NOT_SUPPORTED;
    if (lists("STUB_NVML_DENIED", field)) return NO_PERMISSION;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    int status = (int)number("STUB_NVML_INIT", "0", 0);
    if (status == SUCCESS) initialized++;
    return status;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

/* Counted as in the real one, so that who is done with it takes it from nobody else. */
int nvmlShutdown(void) { if (initialized) initialized--; return SUCCESS; }

const char *nvmlErrorString(int status) { (void)status; return "error of the stub"; }

int nvmlSystemGetDriverVersion(char *value, unsigned int size) {
    int dead = (int)number("STUB_NVML_DEAD", "0", 0);
    if (dead) return dead;
    snprintf(value, size, "999.99");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    int dead = (int)number("STUB_NVML_DEAD", "0", 0);
    if (!initialized) return UNINITIALIZED;
    if (dead) return dead;
    *count = (unsigned int)number("STUB_NVML_COUNT", "1", 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = (void *)(long)(index + 1);
    if (index >= (unsigned int)number("STUB_NVML_COUNT", "1", 0)) return INVALID_ARGUMENT;
    return status_of(*handle, "handle");
}

int nvmlDeviceGetName(void *handle, char *value, unsigned int size) {
    nth_text("STUB_NVML_NAME", "Stub GPU", index_of(handle), value, size);
    return status_of(handle, "name");
}

int nvmlDeviceGetUUID(void *handle, char *value, unsigned int size) {
    snprintf(value, size, "GPU-00000000-0000-0000-0000-%012ld", index_of(handle));
    return status_of(handle, "uuid");
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    memory->total = (unsigned long long)number("STUB_NVML_TOTAL_MB", "24576", index_of(handle)) * MIB;
    memory->used = (unsigned long long)number("STUB_NVML_USED_MB", "1024", index_of(handle)) * MIB;
    memory->free = memory->total - memory->used;
    return status_of(handle, "memory");
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, MemoryV2 *memory) {
    Memory plain;
    int status = nvmlDeviceGetMemoryInfo(handle, &plain);
    memory->total = plain.total;
    memory->reserved = 0;
    memory->free = plain.free;
    memory->used = plain.used;
    return status;
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *utilization) {
    utilization->gpu = (unsigned int)number("STUB_NVML_UTIL", "37", index_of(handle));
    utilization->memory = 10;
    return status_of(handle, "utilization");
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *value) {
    (void)sensor;
    *value = (unsigned int)number("STUB_NVML_TEMP", "55", index_of(handle));
    return status_of(handle, "temperature");
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *value) {
    *value = (unsigned int)number("STUB_NVML_POWER_MW", "71500", index_of(handle));
    return status_of(handle, "power");
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *value) {
    *value = (unsigned int)number("STUB_NVML_LIMIT_MW", "300000", index_of(handle));
    return status_of(handle, "limit");
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    char value[32];
    nth_text("STUB_NVML_CAPABILITY", "8.9", index_of(handle), value, sizeof value);
    sscanf(value, "%d.%d", major, minor);
    return status_of(handle, "capability");
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    *reasons = (unsigned long long)number("STUB_NVML_SLOWED", "0", index_of(handle));
    return status_of(handle, "slowed");
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    if (number("STUB_NVML_OLD", "0", 0)) return FUNCTION_NOT_FOUND;
    return nvmlDeviceGetCurrentClocksThrottleReasons(handle, reasons);
}

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *count) {
    (void)counter;
    *count = type == 1 ? (unsigned long long)number("STUB_NVML_ECC", "0", index_of(handle)) : 0;
    return status_of(handle, "ecc");
}

int nvmlDeviceGetClockInfo(void *handle, int type, unsigned int *value) {
    (void)type;
    *value = (unsigned int)number("STUB_NVML_CLOCK", "1980", index_of(handle));
    return status_of(handle, "clock");
}

int nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned int *value) {
    (void)type;
    *value = (unsigned int)number("STUB_NVML_MAX_CLOCK", "1980", index_of(handle));
    return status_of(handle, "highest");
}

int nvmlDeviceGetMigMode(void *handle, unsigned int *current, unsigned int *pending) {
    *current = *pending = (unsigned int)number("STUB_NVML_MIG", "0", index_of(handle));
    return status_of(handle, "mig");
}

static int processes(void *handle, const char *key, unsigned int *count, Process *found) {
    char all[1024], *rest = all, *item;
    unsigned int number_found = 0, room = *count;
    int status = status_of(handle, "processes");
    if (status) return status;
    text(key, "", all, sizeof all);
    if (index_of(handle) != 0) all[0] = 0;
    while ((item = strsep(&rest, ","))) {
        if (!*item) continue;
        if (found && number_found < room) {
            char *memory = strchr(item, ':');
            int hidden = !memory || memory[1] == '?';
            found[number_found].pid = (unsigned int)atol(item);
            found[number_found].used = hidden ? ~0ull : (unsigned long long)atoll(memory + 1) * MIB;
            found[number_found].instance[0] = found[number_found].instance[1] = ~0u;
        }
        number_found++;
    }
    *count = number_found;
    return number_found > (found ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, Process *found) {
    return processes(handle, "STUB_NVML_PROCESSES", count, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, Process *found) {
    return processes(handle, "STUB_NVML_GRAPHICS", count, found);
}

typedef struct { unsigned int listens; int reported; } EventSet;

int nvmlEventSetCreate(void **set) {
    *set = calloc(1, sizeof(EventSet));
    return initialized ? SUCCESS : UNINITIALIZED;
}

int nvmlEventSetFree(void *set) { free(set); return SUCCESS; }

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) {
    int status = status_of(handle, "events");
    if (status == SUCCESS && types == 8) ((EventSet *)set)->listens |= 1u << index_of(handle);
    return status;
}

int nvmlEventSetWait_v2(void *opaque, Event *event, unsigned int milliseconds) {
    char all[1024], *rest = all, *item;
    EventSet *set = opaque;
    int number_found = 0;
    (void)milliseconds;
    text("STUB_NVML_XID", "", all, sizeof all);
    while ((item = strsep(&rest, ","))) {
        char *code = strchr(item, ':');
        long index = atol(item);
        if (!code || number_found++ < set->reported) continue;
        set->reported++;
        if (!(set->listens & 1u << index)) continue;
        event->device = (void *)(index + 1);
        event->type = 8;
        event->data = (unsigned long long)atoll(code + 1);
        return SUCCESS;
    }
    return TIMEOUT;
}
