// Work shared by the threads of XLA's pool, and vectors of floats.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jaxseg {

// Floats in the widest vector of the machine, and the number of vector registers for sums. The other
// operands of a tile take the rest.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kSums = 28;
#elif defined(__AVX__)
constexpr int kLanes = 8, kSums = 12;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kSums = 24;
#else
constexpr int kLanes = 4, kSums = 12;
#endif

// Unrolls a short loop, so that its sums stay in registers.
#if defined(__clang__)
#define JAXSEG_UNROLL _Pragma("clang loop unroll(full)")
#else
#define JAXSEG_UNROLL _Pragma("GCC unroll 32")
#endif

template <int N>
struct VectorOf {
  typedef float type __attribute__((vector_size(4 * N), aligned(4), may_alias));
};
template <int N>
using Vector = typename VectorOf<N>::type;

template <int N>
inline Vector<N> load(const float* from) {
  return *reinterpret_cast<const Vector<N>*>(from);
}

template <int N>
inline void store(float* to, Vector<N> values) {
  *reinterpret_cast<Vector<N>*>(to) = values;
}

// Memory that a thread keeps from one call to the next.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  // At least `count` floats with undefined contents. Throws std::bad_alloc.
  float* floats(int64_t count) {
    if (count > count_) {
      std::free(data_);
      count_ = 0;
      const int64_t rounded = (count + 15) / 16 * 16;
      data_ = static_cast<float*>(std::aligned_alloc(64, 4 * rounded));
      if (data_ == nullptr) throw std::bad_alloc();
      count_ = rounded;
    }
    return data_;
  }

 private:
  float* data_ = nullptr;
  int64_t count_ = 0;
};

// Memory of one call, which later calls use again. Calls run on any thread, and the transformed
// kernels of one layer can take tens of megabytes, so each thread does not keep its own.
class Borrowed {
 public:
  Borrowed() {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (unused_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(unused_.back());
      unused_.pop_back();
    }
  }
  ~Borrowed() {
    const std::lock_guard<std::mutex> guard(mutex_);
    unused_.push_back(std::move(scratch_));
  }
  float* floats(int64_t count) { return scratch_->floats(count); }

 private:
  inline static std::mutex mutex_;
  inline static std::vector<std::unique_ptr<Scratch>> unused_;
  std::unique_ptr<Scratch> scratch_;
};

// Runs work(0) to work(count - 1), in any order, on this thread and on free threads of the pool.
// This thread waits only for pieces that have begun, so that calls within a busy pool cannot wait
// for each other. Throws std::bad_alloc if a piece of work does.
inline void share(xla::ffi::ThreadPool& pool, int64_t count,
                  const std::function<void(int64_t)>& work) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> failed{false};
  };
  auto progress = std::make_shared<Progress>();
  // A helper that starts late finds no piece left. It does not touch `work`, which may be destroyed.
  std::function<void()> run = [progress, count, &work] {
    for (int64_t piece; (piece = progress->next.fetch_add(1)) < count;) {
      try {
        work(piece);
      } catch (const std::bad_alloc&) {
        progress->failed = true;
      }
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(std::function<void()>(run));
  run();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
  if (progress->failed) throw std::bad_alloc();
}

// Shape of a convolution: images (batch, height, width, in), kernel (3, 3, in, out), results
// (batch, height, width, out), row-major; `out` is a multiple of 8.
struct Shape {
  int64_t batch, height, width, in, out;
};

}  // namespace jaxseg
