// What the kernels ask of the machine: memory, and PyTorch's threads. A shared object then needs the C library alone, and
// serves every Python and PyTorch: std::vector would bring C++'s runtime along, OpenMP a pool of threads beside PyTorch's.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

using Int = int64_t;

// Memory of one owner, which begins as zeros unless these would be written over unread. Where there is none left the process
// ends; no exception may leave a function that Python called through ctypes.
template <class T> class Buffer {
  static constexpr std::size_t ALIGNMENT = 64;  // of the widest vectors
  T *first = nullptr;

 public:
  Buffer() = default;
  explicit Buffer(Int size, bool zeros = true) {
    const std::size_t bytes = size * sizeof(T);
#ifdef _WIN32
    void *memory = _aligned_malloc(bytes ? bytes : 1, ALIGNMENT);
    if (!memory) std::abort();
#else
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, bytes ? bytes : 1)) std::abort();
#endif
    first = static_cast<T *>(zeros ? std::memset(memory, 0, bytes) : memory);
  }
  Buffer &operator=(Buffer &&other) { return std::swap(first, other.first), *this; }
#ifdef _WIN32
  ~Buffer() { _aligned_free(first); }
#else
  ~Buffer() { std::free(first); }
#endif
  T *data() const { return first; }
  T &operator[](Int i) const { return first[i]; }
};

// PyTorch's own loop, torch_parallel_for: work(…, context) on every share of begin … end, each on a thread of its pool.
using Loop = int32_t (*)(Int begin, Int end, Int grain, void (*work)(Int, Int, void *), void *context);
extern __attribute__((visibility("hidden"))) Loop loop;  // null: one thread

// Every thread makes itself a worker and calls it with the jobs that it gets.
template <class Make> static void parallel(Int jobs, Int threads, Make make) {
  const Int together = std::max<Int>(1, jobs / (8 * threads));  // so that the last to finish is late by an eighth
  std::atomic<Int> next{0};
  auto work = [&] {
    Int job = next.fetch_add(together);
    if (job >= jobs) return;  // before memory is taken
    auto worker = make();
    for (; job < jobs; job = next.fetch_add(together))
      for (Int i = job; i < std::min(job + together, jobs); ++i) worker(i);
  };
  const auto share = [](Int, Int, void *context) { (*static_cast<decltype(work) *>(context))(); };
  if (threads > 1 && jobs > 1 && loop) loop(0, std::min(threads, jobs), 1, share, &work);
  work();  // what one thread is to do, or a loop that failed has left
}
