// The convolution. A tile is a block of pixels times output channels. Each core keeps the sums of a
// tile in vector registers while it adds all products to them.

#pragma once

#include <cstring>
#include <utility>

#include "threads.h"

namespace jaxseg {

#if defined(__clang__) || __GNUC__ >= 12
#define JAXSEG_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int Order __attribute__((vector_size(32)));
#define JAXSEG_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Order{__VA_ARGS__})
#endif

// Interleaves vectors k and k + 4 element by element: the lower halves first, then the upper ones.
inline void interleave(const Vector<8>* from, Vector<8>* to) {
  for (int k = 0; k < 4; ++k) {
    to[2 * k] = JAXSEG_SHUFFLE(from[k], from[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
    to[2 * k + 1] = JAXSEG_SHUFFLE(from[k], from[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
  }
}

// Transposes a row (width, channels) to (channels, pitch): one zero, the pixels, then zeros.
inline void transpose_row(const float* row, float* to, int64_t width, int64_t channels,
                          int64_t pitch) {
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    float* out = to + c * pitch;
    int64_t x = 0;
    for (; x + 8 <= width; x += 8) {
      Vector<8> a[8], b[8];
      for (int k = 0; k < 8; ++k) a[k] = load<8>(row + (x + k) * channels + c);
      interleave(a, b);  // three rounds transpose 8 x 8 numbers
      interleave(b, a);
      interleave(a, b);
      for (int k = 0; k < 8; ++k) store<8>(out + k * pitch + 1 + x, b[k]);
    }
    for (; x < width; ++x)
      for (int k = 0; k < 8; ++k) out[k * pitch + 1 + x] = row[x * channels + c + k];
  }
  for (; c < channels; ++c)
    for (int64_t x = 0; x < width; ++x) to[c * pitch + 1 + x] = row[x * channels + c];
  for (c = 0; c < channels; ++c) {
    to[c * pitch] = 0.0f;
    std::fill(to + c * pitch + 1 + width, to + (c + 1) * pitch, 0.0f);
  }
}

// Computes a tile of P pixels of a row times Q vectors of N output channels. `rows` points to the
// three transposed image rows around it, at the pixel before the first; null outside the image.
// `valid` is the number of the P pixels that are inside the image.
template <int P, int Q, int N>
void tile(const float* const* rows, const float* kernel, float* to, const Shape& s, int64_t pitch,
          int64_t valid) {
  Vector<N> sum[P][Q] = {};
  for (int dy = 0; dy < 3; ++dy) {
    const float* x = rows[dy];
    if (x == nullptr) {
      kernel += s.in * 3 * Q * N;
      continue;
    }
    for (int64_t c = 0; c < s.in; ++c, x += pitch) {
      JAXSEG_UNROLL
      for (int dx = 0; dx < 3; ++dx, kernel += Q * N) {
        const float* pixels = x + dx;
        // Hide from the compiler that the next dx reads most of the same numbers. If it kept them
        // in registers, sums would be spilled to memory.
        asm("" : "+r"(pixels));
        Vector<N> weights[Q];
        JAXSEG_UNROLL
        for (int q = 0; q < Q; ++q) weights[q] = load<N>(kernel + q * N);
        JAXSEG_UNROLL
        for (int p = 0; p < P; ++p) {
          const float pixel = pixels[p];
          JAXSEG_UNROLL
          for (int q = 0; q < Q; ++q) sum[p][q] += pixel * weights[q];
        }
      }
    }
  }
  JAXSEG_UNROLL
  for (int p = 0; p < P; ++p) {
    if (p >= valid) return;
    JAXSEG_UNROLL
    for (int q = 0; q < Q; ++q) store<N>(to + p * s.out + q * N, sum[p][q]);
  }
}

using Tile = void (*)(const float* const*, const float*, float*, const Shape&, int64_t, int64_t);

// Size of a tile in pixels and in output channels, and the function that computes it.
struct Tiling {
  int64_t pixels, block;
  Tile run;
};

template <int Q, int N, int Step, int... K>
Tiling find_tiling(int64_t pixels, std::integer_sequence<int, K...>) {
  Tiling found{};
  // The smallest multiple of the step that is at least `pixels`.
  ((found.run == nullptr && pixels <= (K + 1) * Step
        ? (void)(found = {(K + 1) * Step, Q * N, tile<(K + 1) * Step, Q, N>})
        : (void)0),
   ...);
  return found;
}

// The tiling with the fewest tiles per row that fit the registers, all of one size.
template <int Q, int N>
Tiling tiling(int64_t width) {
  constexpr int most = kSums / Q, step = most > 14 ? 4 : most > 7 ? 2 : 1;
  const int64_t tiles = (width + most - 1) / most;
  return find_tiling<Q, N, step>((width + tiles - 1) / tiles,
                                 std::make_integer_sequence<int, most / step>());
}

inline Tiling tiling(const Shape& s) {
  if (s.out % kLanes) return tiling<1, 8>(s.width);
  const int64_t vectors = s.out / kLanes;
  if (vectors % 4 == 0 && s.width <= kSums / 4) return tiling<4, kLanes>(s.width);
  if (vectors % 2 == 0) return tiling<2, kLanes>(s.width);
  return tiling<1, kLanes>(s.width);
}

// Packs `block` output channels of the kernel, from `first` on, in the order in which a tile reads
// them: (3, in, 3, block), dy first. If `turned`, the kernel is (3, 3, out, in) and is rotated by
// 180 degrees, as the gradient with respect to the images requires.
inline void pack(const float* kernel, float* to, const Shape& s, int64_t block, int64_t first,
                 bool turned) {
  for (int dy = 0; dy < 3; ++dy)
    for (int64_t c = 0; c < s.in; ++c)
      for (int dx = 0; dx < 3; ++dx, to += block) {
        if (turned) {
          const float* from = kernel + (((2 - dy) * 3 + 2 - dx) * s.out + first) * s.in + c;
          for (int64_t o = 0; o < block; ++o) to[o] = from[o * s.in];
        } else {
          std::memcpy(to, kernel + ((dy * 3 + dx) * s.in + c) * s.out + first, 4 * block);
        }
      }
}

// Convolves zero-padded images with a kernel. If `turned`, the kernel is (3, 3, out, in), and the
// result is the gradient, with respect to the images, of a convolution with that kernel.
inline void convolve(xla::ffi::ThreadPool& pool, const float* images, const float* kernel,
                     float* result, const Shape& s, bool turned) {
  const Tiling tiles = tiling(s);
  const int64_t blocks = s.out / tiles.block, packed_size = 9 * s.in * tiles.block;
  Borrowed scratch;
  float* packed = scratch.floats(blocks * packed_size);
  share(pool, blocks, [&](int64_t block) {
    pack(kernel, packed + block * packed_size, s, tiles.block, block * tiles.block, turned);
  });
  const int64_t row_tiles = (s.width + tiles.pixels - 1) / tiles.pixels;
  const int64_t pitch = row_tiles * tiles.pixels + 2, plane = s.in * pitch;
  // A piece of work is about a quarter of a megabyte of image rows times some blocks of channels.
  const int64_t height = std::min(std::max<int64_t>(65536 / plane - 2, 4), s.height);
  const int64_t strips = (s.height + height - 1) / height;
  const int64_t wanted = 4 * std::max<int64_t>(pool.num_threads(), 1);
  const int64_t parts = std::clamp<int64_t>(wanted / (s.batch * strips), 1, blocks);
  share(pool, s.batch * strips * parts, [&](int64_t piece) {
    const int64_t part = piece % parts, strip = piece / parts % strips;
    const int64_t image = piece / parts / strips;
    const int64_t first = strip * height, last = std::min(first + height, s.height);
    thread_local Scratch scratch;
    float* strip_rows = scratch.floats((height + 2) * plane);
    const auto row = [&](int64_t y) { return strip_rows + (y - first + 1) * plane; };
    for (int64_t y = std::max<int64_t>(first - 1, 0); y < std::min(last + 1, s.height); ++y)
      transpose_row(images + (image * s.height + y) * s.width * s.in, row(y), s.width, s.in, pitch);
    for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block)
      for (int64_t y = first; y < last; ++y)
        for (int64_t x = 0; x < s.width; x += tiles.pixels) {
          const float* rows[3];
          for (int dy = 0; dy < 3; ++dy) {
            const int64_t at = y + dy - 1;
            rows[dy] = at < 0 || at >= s.height ? nullptr : row(at) + x;
          }
          float* to = result + ((image * s.height + y) * s.width + x) * s.out + block * tiles.block;
          tiles.run(rows, packed + block * packed_size, to, s, pitch, s.width - x);
        }
  });
}

}  // namespace jaxseg
