/* A libcuda.so.1 without a GPU behind it: what Triton's launcher calls, refusing what CUDA's driver refuses.

It takes a cubin apart as the driver does (which kernel, how many registers, which parameters of which sizes), checks
every launch against that and against the limits of the GPU it stands for, and keeps what it was given: grid, block,
shared memory, the bytes of every parameter. Nothing is run. The entries that start with `stub_` are for Python. */

#include "cuda.h"
#include <elf.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PARAMETERS = 512, MOST_BYTES = 32768, MOST_MODULES = 4096, MOST_LAUNCHES = 256 };

/* Kinds of entries in a cubin's sections .nv.info and .nv.info.KERNEL. */
enum { MAX_THREADS = 0x05, REQUIRED_BLOCK = 0x10, PARAMETER = 0x17, PARAMETER_BYTES = 0x19, REGISTERS = 0x2f };

typedef struct {
  char name[128];
  unsigned capability, registers, static_shared, opted_shared, required_block[3], most_threads;
  unsigned parameters, parameter_bytes, offsets[MOST_PARAMETERS], sizes[MOST_PARAMETERS];
} Kernel;

typedef struct {
  const Kernel *kernel;
  unsigned grid[3], block[3], shared, attributes;
  unsigned long long stream;
  unsigned char values[MOST_BYTES];
} Launch;

static Kernel kernels[MOST_MODULES];
static Launch launches[MOST_LAUNCHES];
static unsigned kernel_count, launch_count, capability = 80;
static int context;
static char why[256] = "no error";

static CUresult refused(CUresult code, const char *reason) {
  snprintf(why, sizeof why, "%s", reason);
  return code;
}

/* Bytes of shared memory: of one multiprocessor, and the most a program may opt in to (CUDA programming guide,
   "technical specifications per compute capability"). */
static int shared_of_multiprocessor(void) {
  return 1024 * (capability == 80 ? 164 : capability == 90 || capability / 10 == 10 ? 228 : 100);
}

static int shared_at_most(void) { return shared_of_multiprocessor() - 1024; }

/* --- a cubin's own description of its kernel */

static const Elf64_Shdr *section_named(const unsigned char *image, const char *prefix, const char **rest) {
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  const Elf64_Shdr *sections = (const Elf64_Shdr *)(image + header->e_shoff);
  const char *names = (const char *)image + sections[header->e_shstrndx].sh_offset;
  for (int i = 0; i < header->e_shnum; ++i) {
    const char *name = names + sections[i].sh_name;
    if (strncmp(name, prefix, strlen(prefix)) == 0) {
      *rest = name + strlen(prefix);
      return sections + i;
    }
  }
  return NULL;
}

static int read_entries(Kernel *kernel, const unsigned char *at, const unsigned char *end) {
  while (at < end) {
    unsigned char format = at[0], kind = at[1];
    unsigned short size = (unsigned short)(at[2] | at[3] << 8);
    const unsigned *words = (const unsigned *)(at + 4);
    if (format != 4) { /* the value itself stands where a size would */
      if (kind == PARAMETER_BYTES)
        kernel->parameter_bytes = size;
      at += 4;
      continue;
    }
    if (kind == REGISTERS && words[1] > kernel->registers) /* of the kernel, or of what it calls */
      kernel->registers = words[1];
    if (kind == REQUIRED_BLOCK)
      memcpy(kernel->required_block, words, sizeof kernel->required_block);
    if (kind == MAX_THREADS)
      kernel->most_threads = words[0];
    if (kind == PARAMETER) {
      unsigned ordinal = words[1] & 0xffff;
      if (ordinal >= MOST_PARAMETERS)
        return 0;
      kernel->offsets[ordinal] = words[1] >> 16;
      kernel->sizes[ordinal] = words[2] >> 18;
      if (ordinal + 1 > kernel->parameters)
        kernel->parameters = ordinal + 1;
    }
    at += 4 + size;
  }
  return 1;
}

static int read_section(Kernel *kernel, const unsigned char *image, const Elf64_Shdr *section) {
  const unsigned char *start = image + section->sh_offset;
  return read_entries(kernel, start, start + section->sh_size);
}

static int read_cubin(Kernel *kernel, const unsigned char *image) {
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  const char *name, *other;
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
    return 0;
  memset(kernel, 0, sizeof *kernel);
  kernel->capability = header->e_ident[EI_ABIVERSION] >= 8 ? header->e_flags >> 8 & 0xff : header->e_flags & 0xff;
  const Elf64_Shdr *text = section_named(image, ".text.", &name);
  const Elf64_Shdr *about = section_named(image, ".nv.info.", &other);
  if (!text || !about || strcmp(name, other) != 0)
    return 0;
  snprintf(kernel->name, sizeof kernel->name, "%s", name);
  const Elf64_Shdr *shared = section_named(image, ".nv.shared.", &other);
  kernel->static_shared = shared && strcmp(name, other) == 0 ? (unsigned)shared->sh_size : 0;
  unsigned reserved = kernel->capability >= 90 ? 1024 : 0; /* the system's own, counted in no limit */
  kernel->static_shared -= kernel->static_shared < reserved ? kernel->static_shared : reserved;
  const Elf64_Shdr *of_all = section_named(image, ".nv.info", &other);
  return other[0] == 0 && read_section(kernel, image, of_all) && read_section(kernel, image, about) &&
         kernel->registers > 0 && kernel->parameter_bytes <= MOST_BYTES;
}

/* --- what Triton calls */

CUresult cuGetErrorString(CUresult code, const char **text) { return *text = why, CUDA_SUCCESS; }
CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) { return *device = ordinal, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *now) { return *now = (CUcontext)&context, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext now) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *now, CUdevice device) { return cuCtxGetCurrent(now); }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t *size, CUlimit limit) { return *size = 0, CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t size) { return CUDA_SUCCESS; }

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
    return *value = shared_at_most(), CUDA_SUCCESS;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
    return *value = shared_of_multiprocessor(), CUDA_SUCCESS;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    return *value = 65536, CUDA_SUCCESS;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    return *value = 32, CUDA_SUCCESS;
  default: /* counts and clocks, which no launch depends on */
    return *value = 1, CUDA_SUCCESS;
  }
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  if (kernel_count == MOST_MODULES)
    return refused(CUDA_ERROR_OUT_OF_MEMORY, "more kernels than the stub keeps");
  Kernel *kernel = kernels + kernel_count;
  if (!read_cubin(kernel, image))
    return refused(CUDA_ERROR_INVALID_IMAGE, "not a cubin with one kernel");
  if (kernel->capability != capability)
    return refused(CUDA_ERROR_NO_BINARY_FOR_GPU, "a cubin for another GPU");
  ++kernel_count;
  return *module = (CUmodule)kernel, CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  if (strcmp(((Kernel *)module)->name, name) != 0)
    return refused(CUDA_ERROR_NOT_FOUND, "the module has no kernel of that name");
  return *function = (CUfunction)module, CUDA_SUCCESS;
}

static unsigned threads_at_most(const Kernel *kernel) {
  unsigned required = kernel->required_block[0] * kernel->required_block[1] * kernel->required_block[2];
  return required ? required : kernel->most_threads ? kernel->most_threads : 1024;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  const Kernel *kernel = (const Kernel *)function;
  switch (attribute) {
  case CU_FUNC_ATTRIBUTE_NUM_REGS:
    return *value = (int)kernel->registers, CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    return *value = (int)threads_at_most(kernel), CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    return *value = (int)kernel->static_shared, CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: /* spills: the machine-code gate reads them */
    return *value = 0, CUDA_SUCCESS;
  default:
    return refused(CUDA_ERROR_INVALID_VALUE, "an attribute of a function that the stub does not know");
  }
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  Kernel *kernel = (Kernel *)function;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
    return refused(CUDA_ERROR_INVALID_VALUE, "an attribute of a function that the stub does not set");
  if (value < 0 || value + (int)kernel->static_shared > shared_at_most())
    return refused(CUDA_ERROR_INVALID_VALUE, "more dynamic shared memory than a program may have");
  return kernel->opted_shared = (unsigned)value, CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr pointer) {
  if (attribute != CU_POINTER_ATTRIBUTE_DEVICE_POINTER || !pointer)
    return refused(CUDA_ERROR_INVALID_VALUE, "no address");
  return *(CUdeviceptr *)value = pointer, CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
  const Kernel *kernel = (const Kernel *)function;
  const unsigned grid[3] = {config->gridDimX, config->gridDimY, config->gridDimZ};
  const unsigned block[3] = {config->blockDimX, config->blockDimY, config->blockDimZ};
  unsigned threads = block[0] * block[1] * block[2], shared = config->sharedMemBytes;
  if (grid[0] < 1 || grid[0] > 0x7fffffff || grid[1] < 1 || grid[1] > 65535 || grid[2] < 1 || grid[2] > 65535)
    return refused(CUDA_ERROR_INVALID_VALUE, "a grid that no GPU takes");
  if (threads < 1 || threads > threads_at_most(kernel))
    return refused(CUDA_ERROR_INVALID_VALUE, "a block of no thread, or of more than the kernel takes");
  if (kernel->required_block[0] && memcmp(block, kernel->required_block, sizeof block) != 0)
    return refused(CUDA_ERROR_INVALID_VALUE, "another block than the kernel requires");
  unsigned of_a_warp = (32 * kernel->registers + 255) / 256 * 256; /* registers are given out 256 at a time */
  if ((threads + 31) / 32 * of_a_warp > 65536)
    return refused(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "more registers than a multiprocessor has");
  unsigned allowed = kernel->opted_shared > 49152 ? kernel->opted_shared : 49152 - kernel->static_shared;
  if (shared > allowed)
    return refused(CUDA_ERROR_INVALID_VALUE, "more shared memory than was asked for");
  if (extra || launch_count == MOST_LAUNCHES)
    return refused(CUDA_ERROR_INVALID_VALUE, "more than the stub keeps");
  Launch *launch = launches + launch_count++;
  memset(launch, 0, sizeof *launch);
  launch->kernel = kernel;
  memcpy(launch->grid, grid, sizeof grid);
  memcpy(launch->block, block, sizeof block);
  launch->shared = shared;
  launch->attributes = config->numAttrs;
  launch->stream = (unsigned long long)config->hStream;
  for (unsigned i = 0; i < kernel->parameters; ++i)
    memcpy(launch->values + kernel->offsets[i], parameters[i], kernel->sizes[i]);
  return CUDA_SUCCESS;
}

/* --- for Python */

void stub_gpu(unsigned its_capability) { capability = its_capability; }
unsigned stub_count(void) { return launch_count; }
void stub_forget(void) { launch_count = 0; }
const char *stub_name(unsigned i) { return launches[i].kernel->name; }
const unsigned *stub_grid(unsigned i) { return launches[i].grid; }
const unsigned *stub_block(unsigned i) { return launches[i].block; }
unsigned stub_shared(unsigned i) { return launches[i].shared; }
unsigned stub_registers(unsigned i) { return launches[i].kernel->registers; }
unsigned long long stub_stream(unsigned i) { return launches[i].stream; }
unsigned stub_parameters(unsigned i) { return launches[i].kernel->parameters; }
unsigned stub_size(unsigned i, unsigned parameter) { return launches[i].kernel->sizes[parameter]; }
const unsigned char *stub_value(unsigned i, unsigned parameter) {
  return launches[i].values + launches[i].kernel->offsets[parameter];
}
