// The gradient of the convolution with respect to its kernel by Winograd's algorithm: G^T (sum over
// tiles (B^T d B) (A y A^T)) G, with pixels d and cotangents y.

#pragma once

#include "kernel_gradient.h"
#include "winograd.h"

namespace jaxseg {

// Adds, at one position, the products of C input channels with Q vectors of output channels, summed
// over tiles. `pixels` is (pitch, lanes) from the first of the C channels on, `cotangents` (Q, pitch,
// lanes), `to` (C, stride).
template <int C, int Q>
void add_products(const float* pixels, const float* cotangents, float* to, int64_t stride,
                  int64_t count) {
  Lanes sum[C][Q];
  JAXSEG_UNROLL
  for (int c = 0; c < C; ++c) {
    JAXSEG_UNROLL
    for (int q = 0; q < Q; ++q) sum[c][q] = load<kLanes>(to + c * stride + q * kLanes);
  }
  for (int64_t t = 0; t < count; ++t, pixels += kLanes, cotangents += kLanes) {
    Lanes cotangent[Q];
    JAXSEG_UNROLL
    for (int q = 0; q < Q; ++q) cotangent[q] = load<kLanes>(cotangents + q * kPitch * kLanes);
    JAXSEG_UNROLL
    for (int c = 0; c < C; ++c) {
      JAXSEG_UNROLL
      for (int q = 0; q < Q; ++q) sum[c][q] += pixels[c] * cotangent[q];
    }
  }
  JAXSEG_UNROLL
  for (int c = 0; c < C; ++c) {
    JAXSEG_UNROLL
    for (int q = 0; q < Q; ++q) store<kLanes>(to + c * stride + q * kLanes, sum[c][q]);
  }
}

// Computes `ins` times `outs` vectors of channels of the gradient, summed over tiles `first` to
// `last`. `to` is the block's place in a gradient (3, 3, s.in, s.out); `images` and `cotangents` start
// at the block's first channel.
template <int Q>
void winograd_gradient_block(const float* images, const float* cotangents, float* to, int64_t ins,
                             int64_t outs, int64_t first, int64_t last, const Tiles& tiles,
                             const Shape& s) {
  constexpr int C = kLanes / Q < 4 ? 4 : kLanes / Q;
  const int64_t stride = outs * kLanes, plane = ins * kLanes * stride;
  thread_local Scratch scratch;
  const int64_t size = kPositions * (ins + outs) * kPitch * kLanes;
  float* pixels = scratch.floats(size + kPositions * plane + std::max(s.in, s.out));
  float* values = pixels + kPositions * ins * kPitch * kLanes;
  float* sums = pixels + size;
  float* outside = sums + kPositions * plane;
  std::fill_n(sums, kPositions * plane + std::max(s.in, s.out), 0.0f);
  for (int64_t group = first; group < last; group += kGroup) {
    const int64_t count = std::min<int64_t>(kGroup, last - group);
    Place place(tiles, group);
    for (int64_t t = 0; t < count; ++t, place.next(tiles)) {
      transform_tile(Window<kSide>(images, outside, place, 1, s, s.in),
                     pixels + t * kLanes, ins, transform_pixels);
      transform_tile(Window<kTile>(cotangents, outside, place, 0, s, s.out),
                     values + t * kLanes, outs, transform_cotangents);
    }
    for (int64_t k = 0; k < kPositions; ++k)
      for (int64_t o = 0; o < outs; o += Q)
        for (int64_t c = 0; c < ins * kLanes; c += C)
          add_products<C, Q>(
              pixels + (k * ins + c / kLanes) * kPitch * kLanes + c % kLanes,
              values + (k * outs + o) * kPitch * kLanes,
              sums + k * plane + c * stride + o * kLanes, stride, count);
  }
  for (int64_t c = 0; c < ins * kLanes; ++c)
    for (int64_t o = 0; o < stride; o += kLanes)
      both_sides<kSide, 3>(
          transform_gradient,
          [&](int i, int j) {
            return load<kLanes>(sums + (i * kSide + j) * plane + c * stride + o);
          },
          [&](int i, int j, Lanes value) {
            store<kLanes>(to + ((i * 3 + j) * s.in + c) * s.out + o, value);
          });
}

// Like `kernel_gradient`.
inline void winograd_kernel_gradient(xla::ffi::ThreadPool& pool, const float* images,
                                     const float* cotangents, float* result, const Shape& s) {
  const Tiles tiles(s);
  const auto run = s.out % (2 * kLanes) ? winograd_gradient_block<1> : winograd_gradient_block<2>;
  constexpr int64_t kIn = 32 / kLanes, kOut = 64 / kLanes, kPieces = 16;
  const int64_t vectors_in = s.in / kLanes, vectors_out = s.out / kLanes;
  const int64_t ins = (vectors_in + kIn - 1) / kIn, outs = (vectors_out + kOut - 1) / kOut;
  const int64_t groups =
      std::max<int64_t>(std::min(kPieces / (ins * outs), tiles.count / kGroup), 1);
  const int64_t size = 9 * s.in * s.out;
  Borrowed scratch;
  float* sums = groups == 1 ? result : scratch.floats(groups * size);
  share(pool, ins * outs * groups, [&](int64_t piece) {
    const int64_t c = piece % ins * kIn, o = piece / ins % outs * kOut, group = piece / ins / outs;
    run(images + c * kLanes, cotangents + o * kLanes,
        sums + group * size + (c * s.out + o) * kLanes, std::min(kIn, vectors_in - c),
        std::min(kOut, vectors_out - o), tiles.count * group / groups,
        tiles.count * (group + 1) / groups, tiles, s);
  });
  if (groups > 1) add_groups(pool, sums, result, groups, size);
}

}  // namespace jaxseg
