// Calls the kernels of a library with what replay.py recorded, and says how far their results are from the recorded ones.
// Plain C of any system: replay LIBRARY RECORD
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
static void *opened(const char *path) { return (void *)LoadLibraryA(path); }
static void *symbol(void *library, const char *name) { return (void *)GetProcAddress((HMODULE)library, name); }
#else
#include <dlfcn.h>
static void *opened(const char *path) { return dlopen(path, RTLD_NOW); }
static void *symbol(void *library, const char *name) { return dlsym(library, name); }
#endif

enum { MOST = 128 };  // fields of a struct, and buffers of a call

typedef struct {
  int64_t bytes, width;  // width: of a number that the kernel may write; 4 float, 8 double
  char *before, *after, *now;
} Buffer;

static void fail(const char *what, const char *name) {
  fprintf(stderr, "%s: %s\n", what, name);
  exit(2);
}
static void take(FILE *file, void *to, int64_t bytes) {
  if (fread(to, 1, bytes, file) != (size_t)bytes) fail("the record ends early", "record it again");
}
static int64_t number(FILE *file) {
  int64_t x;
  take(file, &x, 8);
  return x;
}
static char *text(FILE *file) {
  const int64_t bytes = number(file);
  char *x = calloc(bytes + 1, 1);
  take(file, x, bytes);
  return x;
}
// On a boundary of 64 bytes, as PyTorch's memory is: a place in it is then as well aligned as it was.
static char *memory(int64_t bytes) {
  char *x = malloc(bytes + 64);
  return x + (64 - (uintptr_t)x % 64);
}
static double entry(const char *x, int64_t i, int64_t width) {
  if (width == 8) {
    double y;
    memcpy(&y, x + 8 * i, 8);
    return y;
  }
  float y;
  memcpy(&y, x + 4 * i, 4);
  return y;
}

// The largest distance, relative to the largest number that the recorded call wrote: what was there before says nothing.
static double distance(const Buffer *b) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < b->bytes / b->width; ++i) {
    const double x = entry(b->now, i, b->width), y = entry(b->after, i, b->width);
    if (memcmp(b->before + i * b->width, b->after + i * b->width, b->width) && fabs(y) > largest) largest = fabs(y);
    if (!memcmp(b->now + i * b->width, b->after + i * b->width, b->width) || x == y || (isnan(x) && isnan(y))) continue;
    worst = isnan(x - y) ? INFINITY : fmax(worst, fabs(x - y));
  }
  return worst == 0 ? 0 : worst / (largest > 0 ? largest : 1);
}

int main(int count, char **words) {
  if (count != 3) fail("usage", "replay LIBRARY RECORD");
  void *library = opened(words[1]);
  FILE *file = fopen(words[2], "rb");
  if (!library) fail("cannot be loaded", words[1]);
  if (!file) fail("cannot be read", words[2]);
  for (int64_t calls = number(file); calls > 0; --calls) {
    char *kernel = text(file), *fields = text(file), *name = text(file);
    char described[256];
    snprintf(described, sizeof described, "%s_fields", kernel);
    const char *(*describe)(void) = (const char *(*)(void))symbol(library, described);
    if (!describe || strcmp(describe(), fields)) fail("the library has other fields than the record", kernel);
    void (*run)(const int64_t *, int, int) = (void (*)(const int64_t *, int, int))symbol(library, name);
    if (!run) fail("the library has no", name);
    int flags[2] = {0, 0};
    for (int64_t i = 0, n = number(file); i < n; ++i) flags[i] = (int)number(file);
    Buffer buffers[MOST];
    const int64_t many = number(file);
    for (int64_t i = 0; i < many; ++i) {
      Buffer *b = buffers + i;
      b->bytes = number(file), b->width = number(file);
      b->before = memory(b->bytes), b->after = memory(b->bytes), b->now = memory(b->bytes);
      take(file, b->before, b->bytes), take(file, b->after, b->bytes);
      memcpy(b->now, b->before, b->bytes);
    }
    int64_t values[MOST];
    for (int64_t i = 0, n = number(file); i < n; ++i) {  // the number of a buffer, or -1, and a place in it or a value
      const int64_t buffer = number(file), value = number(file);
      values[i] = buffer < 0 ? value : (int64_t)(intptr_t)(buffers[buffer].now + value);
    }
    run(values, flags[0], flags[1]);
    double worst = 0;
    for (int64_t i = 0; i < many; ++i) worst = fmax(worst, distance(buffers + i));
    printf("%s %.3g\n", name, worst);  // its memory stays until the end: the whole record is small
  }
  return 0;
}
