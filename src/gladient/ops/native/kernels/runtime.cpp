// What std::vector asks of C++'s runtime, on top of the C library: with these here a shared object needs no libstdc++, whose
// own versions bring exceptions along and, with them, symbols of a glibc younger than many machines have.
// Memory that is not there ends the process; no exception may leave a function that Python called through ctypes.

#include <cstdlib>
#include <new>
#include <vector>

void *operator new(std::size_t bytes) {
  if (void *memory = std::malloc(bytes ? bytes : 1)) return memory;
  std::abort();
}

void *operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto unit = static_cast<std::size_t>(alignment);
  if (void *memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit)) return memory;
  std::abort();
}

void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

#ifdef __GLIBCXX__  // other standard libraries have these in their headers
namespace std {
void __throw_length_error(const char *) { abort(); }
void __throw_bad_alloc() { abort(); }
void __throw_bad_array_new_length() { abort(); }
}  // namespace std
#endif
