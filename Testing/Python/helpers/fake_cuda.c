/* A stand-in for NVIDIA's driver library: takes the calls of usema/sema/aot/loader.py, writes down what it was asked,
   and refuses when told to. A kernel's parameters are read as its PTX declares them, as the driver does. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char log_text[1 << 16];
static char refused[64];
static int refusal, capability = 80, current = -1;

static void write_down(const char *format, ...)
{
    size_t used = strlen(log_text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(log_text + used, sizeof log_text - used, format, arguments);
    va_end(arguments);
}

void fake_reset(void) { log_text[0] = refused[0] = 0; refusal = 0; capability = 80; current = -1; }
void fake_capability(int value) { capability = value; }
void fake_refuse(const char *function, int code) { strncpy(refused, function, sizeof refused - 1); refusal = code; }
const char *fake_log(void) { return log_text; }
int fake_current_context(void) { return current; }

#define MAY_REFUSE if (!strcmp(refused, __func__)) return refusal

int cuInit(unsigned flags) { MAY_REFUSE; return flags; }
int cuDeviceGet(int *device, int index) { MAY_REFUSE; *device = index; return 0; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    MAY_REFUSE;
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
    return 0;
}

int cuDevicePrimaryCtxRetain(intptr_t *context, int device)
{
    MAY_REFUSE;
    write_down("context of device %d\n", device);
    *context = 1000 + device;
    return 0;
}

int cuCtxPushCurrent_v2(intptr_t context) { MAY_REFUSE; current = context; return 0; }
int cuCtxPopCurrent_v2(intptr_t *context) { MAY_REFUSE; *context = current; current = -1; return 0; }

int cuModuleLoadData(const char **module, const char *ptx)
{
    MAY_REFUSE;
    write_down("load in context %d: %.12s\n", current, ptx);
    *module = ptx;
    return 0;
}

int cuModuleGetFunction(const char **function, const char *module, const char *name)
{
    MAY_REFUSE;
    char entry[128];
    snprintf(entry, sizeof entry, ".visible .entry %s(", name);
    *function = strstr(module, entry);
    return *function ? 0 : 500;
}

int cuFuncSetAttribute(const char *function, int attribute, int value)
{
    MAY_REFUSE;
    write_down("attribute %d of a function is %d\n", attribute, value);
    return function ? 0 : 1;
}

int cuLaunchKernel(const char *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                   unsigned shared, intptr_t stream, void **parameters, void **extra)
{
    MAY_REFUSE;
    if (extra || ty != 1 || tz != 1) return 1;
    write_down("launch in context %d on stream %ld: grid %u %u %u, %u threads, %u bytes:", current, (long)stream, x, y,
               z, tx, shared);
    const char *end = strchr(function, ')');
    for (const char *at = strstr(function, ".param ."); at && at < end; at = strstr(at + 1, ".param .")) {
        if (!strncmp(at, ".param .u64", 11)) write_down(" %llu", (unsigned long long)*(uint64_t *)*parameters++);
        else if (!strncmp(at, ".param .u32", 11)) write_down(" %d", *(int32_t *)*parameters++);
        else return 1;
    }
    write_down("\n");
    return 0;
}
