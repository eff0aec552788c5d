// The gradient of the convolution with respect to its kernel. Each core keeps a part of the gradient
// in vector registers and adds the products of many pixels to it.

#pragma once

#include <cstring>

#include "threads.h"

namespace jaxseg {

// For one dy, adds three dx times C input channels times Q vectors of N output channels to `to`,
// which is (3, s.in, s.out). `images` are rows (width + 2, in) with a zero pixel at either end, from
// the row that belongs to dy on; `cotangents` are rows (width, s.out).
template <int C, int Q, int N>
void gradient_tile(const float* images, const float* cotangents, float* to, int64_t rows,
                   int64_t in, const Shape& s) {
  Vector<N> sum[3][C][Q];
  JAXSEG_UNROLL
  for (int dx = 0; dx < 3; ++dx)
    JAXSEG_UNROLL
    for (int c = 0; c < C; ++c)
      JAXSEG_UNROLL
      for (int q = 0; q < Q; ++q) sum[dx][c][q] = load<N>(to + (dx * s.in + c) * s.out + q * N);
  for (int64_t y = 0; y < rows; ++y, images += 2 * in)
    for (int64_t x = 0; x < s.width; ++x, images += in, cotangents += s.out) {
      Vector<N> cotangent[Q];
      JAXSEG_UNROLL
      for (int q = 0; q < Q; ++q) cotangent[q] = load<N>(cotangents + q * N);
      JAXSEG_UNROLL
      for (int dx = 0; dx < 3; ++dx)
        JAXSEG_UNROLL
        for (int c = 0; c < C; ++c)
          JAXSEG_UNROLL
          for (int q = 0; q < Q; ++q) sum[dx][c][q] += images[dx * in + c] * cotangent[q];
    }
  JAXSEG_UNROLL
  for (int dx = 0; dx < 3; ++dx)
    JAXSEG_UNROLL
    for (int c = 0; c < C; ++c)
      JAXSEG_UNROLL
      for (int q = 0; q < Q; ++q) store<N>(to + (dx * s.in + c) * s.out + q * N, sum[dx][c][q]);
}

// Does the same for `in` input channels.
template <int Q, int N>
void gradient_rows(const float* images, const float* cotangents, float* to, int64_t rows,
                   int64_t in, const Shape& s) {
  constexpr int most = kSums / 3 / Q, C = most >= 8 ? 8 : most >= 4 ? 4 : 2;
  int64_t c = 0;
  for (; c + C <= in; c += C)
    gradient_tile<C, Q, N>(images + c, cotangents, to + c * s.out, rows, in, s);
  for (; c < in; ++c)
    gradient_tile<1, Q, N>(images + c, cotangents, to + c * s.out, rows, in, s);
}

// Copies rows y - 1 to y + rows of the channels `first` to `first + in` of an image to (rows + 2,
// width + 2, in), with zeros around the image.
inline void pad_rows(const float* image, float* to, int64_t y, int64_t rows, int64_t first,
                     int64_t in, const Shape& s) {
  const int64_t line = (s.width + 2) * in;
  for (int64_t at = y - 1; at <= y + rows; ++at, to += line) {
    if (at < 0 || at >= s.height) {
      std::fill(to, to + line, 0.0f);
      continue;
    }
    std::fill(to, to + in, 0.0f);
    std::fill(to + line - in, to + line, 0.0f);
    const float* from = image + at * s.width * s.in + first;
    for (int64_t x = 0; x < s.width; ++x)
      std::memcpy(to + (x + 1) * in, from + x * s.in, 4 * in);
  }
}

// Adds up `groups` gradients of `size` numbers.
inline void add_groups(xla::ffi::ThreadPool& pool, const float* sums, float* result,
                       int64_t groups, int64_t size) {
  constexpr int64_t kShares = 8;
  share(pool, kShares, [&](int64_t part) {
    for (int64_t i = size * part / kShares; i < size * (part + 1) / kShares; ++i) {
      float total = sums[i];
      for (int64_t group = 1; group < groups; ++group) total += sums[group * size + i];
      result[i] = total;
    }
  });
}

// Computes the gradient (3, 3, in, out) of sum(convolve(images, kernel) * cotangents) with respect to
// the kernel. The order of summation depends on the shape alone, so that any number of threads gives
// the same bits.
inline void kernel_gradient(xla::ffi::ThreadPool& pool, const float* images,
                            const float* cotangents, float* result, const Shape& s) {
  const bool wide = s.out % kLanes == 0, two = s.out % (2 * kLanes) == 0;
  const auto add_rows = two    ? gradient_rows<2, kLanes>
                        : wide ? gradient_rows<1, kLanes>
                               : gradient_rows<1, 8>;
  const int64_t block = two ? 2 * kLanes : wide ? kLanes : 8, size = 9 * s.in * s.out;
  // A piece of work is a block of input channels times output channels for a group of images.
  constexpr int64_t kIn = 32, kOut = 32, kPieces = 16;
  const int64_t ins = (s.in + kIn - 1) / kIn, outs = (s.out + kOut - 1) / kOut;
  const int64_t groups = std::clamp<int64_t>(kPieces / (ins * outs), 1, s.batch);
  const int64_t rows = std::clamp<int64_t>(192 / s.width, 1, s.height);
  Borrowed scratch;
  float* sums = groups == 1 ? result : scratch.floats(groups * size);
  share(pool, ins * outs * groups, [&](int64_t piece) {
    const int64_t c = piece % ins * kIn, in = std::min(kIn, s.in - c);
    const int64_t o = piece / ins % outs * kOut, out = std::min(kOut, s.out - o);
    const int64_t group = piece / ins / outs;
    float* to = sums + group * size + c * s.out + o;
    for (int k = 0; k < 9; ++k)
      for (int64_t i = 0; i < in; ++i) std::fill_n(to + (k * s.in + i) * s.out, out, 0.0f);
    thread_local Scratch scratch;
    float* padded = scratch.floats((rows + 2) * (s.width + 2) * in);
    for (int64_t b = s.batch * group / groups; b < s.batch * (group + 1) / groups; ++b)
      for (int64_t y = 0; y < s.height; y += rows) {
        const int64_t count = std::min(rows, s.height - y), pixel = (b * s.height + y) * s.width;
        pad_rows(images + b * s.height * s.width * s.in, padded, y, count, c, in, s);
        for (int64_t k = 0; k < out; k += block)
          for (int dy = 0; dy < 3; ++dy)
            add_rows(padded + dy * (s.width + 2) * in, cotangents + pixel * s.out + o + k,
                     to + dy * 3 * s.in * s.out + k, count, in, s);
      }
  });
  if (groups > 1) add_groups(pool, sums, result, groups, size);
}

}  // namespace jaxseg
