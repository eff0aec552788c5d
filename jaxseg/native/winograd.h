// The convolution by Winograd's algorithm F(4 x 4, 3 x 3) (Lavin and Gray, arXiv:1509.09308): 4 x 4
// pixels at a time need 36 products per pair of channels in place of 144.
//
// With the matrices below, a tile of the result is A^T (sum over channels (G k G^T) (B^T d B)) A, where
// k is the kernel and d the 6 x 6 pixels around the tile. The products of many tiles at one of the 36
// positions are a product of matrices. The matrices evaluate polynomials at the points 0, +-a, +-b and
// infinity; a = sqrt(1/2) and b = sqrt(2) give smaller rounding errors than 1 and 2.

#pragma once

#include <cstring>

#include "threads.h"

namespace jaxseg {

using Lanes = Vector<kLanes>;

constexpr float kA = 0.70710678f, kB = 1.41421356f;
constexpr int kTile = 4, kSide = 6, kPositions = 36;
// Tiles that are computed together, as many as a core has sums, and the distance of their channels.
constexpr int kGroup = kSums, kPitch = kGroup + 1;

// Values of a polynomial at +-a and +-b, from its even and odd parts there.
inline void evaluate(Lanes even_a, Lanes odd_a, Lanes even_b, Lanes odd_b, Lanes* to) {
  to[1] = even_a + odd_a;
  to[2] = even_a - odd_a;
  to[3] = even_b + odd_b;
  to[4] = even_b - odd_b;
}

// B^T d.
inline void transform_pixels(const Lanes* d, Lanes* to) {
  const Lanes even_a = d[4] - 2.0f * d[2], odd_a = d[3] - 2.0f * d[1];
  const Lanes even_b = d[4] - 0.5f * d[2], odd_b = d[3] - 0.5f * d[1];
  to[0] = d[0] - 2.5f * d[2] + d[4];
  evaluate(even_a, kA * odd_a, even_b, kB * odd_b, to);
  to[5] = d[1] - 2.5f * d[3] + d[5];
}

// A^T m.
inline void transform_sums(const Lanes* m, Lanes* to) {
  const Lanes plus_a = m[1] + m[2], minus_a = kA * (m[1] - m[2]);
  const Lanes plus_b = m[3] + m[4], minus_b = kB * (m[3] - m[4]);
  to[0] = m[0] + plus_a + plus_b;
  to[1] = minus_a + minus_b;
  to[2] = 0.5f * plus_a + 2.0f * plus_b;
  to[3] = 0.5f * minus_a + 2.0f * minus_b + m[5];
}

// G k.
inline void transform_kernel(const Lanes* k, Lanes* to) {
  const Lanes even_a = (k[0] + 0.5f * k[2]) * (-2.0f / 3), odd_a = k[1] * (-2.0f / 3 * kA);
  const Lanes even_b = (k[0] + 2.0f * k[2]) * (1.0f / 6), odd_b = k[1] * (1.0f / 6 * kB);
  to[0] = k[0];
  evaluate(even_a, odd_a, even_b, odd_b, to);
  to[5] = k[2];
}

// A y.
inline void transform_cotangents(const Lanes* y, Lanes* to) {
  const Lanes even_a = y[0] + 0.5f * y[2], odd_a = kA * (y[1] + 0.5f * y[3]);
  const Lanes even_b = y[0] + 2.0f * y[2], odd_b = kB * (y[1] + 2.0f * y[3]);
  to[0] = y[0];
  evaluate(even_a, odd_a, even_b, odd_b, to);
  to[5] = y[3];
}

// G^T s.
inline void transform_gradient(const Lanes* s, Lanes* to) {
  const Lanes plus_a = (s[1] + s[2]) * (-2.0f / 3), minus_a = (s[1] - s[2]) * (-2.0f / 3 * kA);
  const Lanes plus_b = (s[3] + s[4]) * (1.0f / 6), minus_b = (s[3] - s[4]) * (1.0f / 6 * kB);
  to[0] = s[0] + plus_a + plus_b;
  to[1] = minus_a + minus_b;
  to[2] = 0.5f * plus_a + 2.0f * plus_b + s[5];
}

// Applies a transform to the columns and then to the rows of From x From vectors; `get(i, j)` returns
// and `put(i, j, vector)` takes one.
template <int From, int To, typename Transform, typename Get, typename Put>
inline void both_sides(Transform transform, Get get, Put put) {
  Lanes half[To][From];
  JAXSEG_UNROLL
  for (int j = 0; j < From; ++j) {
    Lanes column[From], out[To];
    JAXSEG_UNROLL
    for (int i = 0; i < From; ++i) column[i] = get(i, j);
    transform(column, out);
    JAXSEG_UNROLL
    for (int i = 0; i < To; ++i) half[i][j] = out[i];
  }
  JAXSEG_UNROLL
  for (int i = 0; i < To; ++i) {
    Lanes out[To];
    transform(half[i], out);
    JAXSEG_UNROLL
    for (int j = 0; j < To; ++j) put(i, j, out[j]);
  }
}

// The tiles of all images in order.
struct Tiles {
  int64_t rows, columns, count;
  explicit Tiles(const Shape& s)
      : rows((s.height + kTile - 1) / kTile),
        columns((s.width + kTile - 1) / kTile),
        count(s.batch * rows * columns) {}
};

// The place of a tile.
struct Place {
  int64_t image, row, column;
  Place(const Tiles& tiles, int64_t tile)
      : image(tile / (tiles.rows * tiles.columns)),
        row(tile / tiles.columns % tiles.rows),
        column(tile % tiles.columns) {}
  void next(const Tiles& tiles) {
    if (++column < tiles.columns) return;
    column = 0;
    if (++row < tiles.rows) return;
    row = 0;
    ++image;
  }
};

// Whether 0 <= at < size, without branches.
inline bool within(int64_t at, int64_t size) { return uint64_t(at) < uint64_t(size); }

// Pointers to the Side x Side pixels from `offset` before a tile on; `outside` in place of those that
// are not in the image.
template <int Side>
struct Window {
  const float* at[Side][Side];
  Window(const float* images, const float* outside, const Place& place, int offset, const Shape& s,
         int64_t channels) {
    const int64_t top = place.row * kTile - offset, left = place.column * kTile - offset;
    const int64_t first = (place.image * s.height + top) * s.width + left;
    JAXSEG_UNROLL
    for (int i = 0; i < Side; ++i) {
      const bool row = within(top + i, s.height);
      JAXSEG_UNROLL
      for (int j = 0; j < Side; ++j) {
        const bool inside = row & within(left + j, s.width);
        at[i][j] = inside ? images + (first + i * s.width + j) * channels : outside;
      }
    }
  }
};

// Transforms `count` vectors of channels of one tile. `to` is (36, count, pitch, lanes).
template <int Side, typename Transform>
inline void transform_tile(const Window<Side>& window, float* to, int64_t count,
                           Transform transform) {
  const int64_t plane = count * kPitch * kLanes;
  for (int64_t k = 0; k < count; ++k, to += kPitch * kLanes)
    both_sides<Side, kSide>(
        transform, [&](int i, int j) { return load<kLanes>(window.at[i][j] + k * kLanes); },
        [&](int i, int j, Lanes value) { store<kLanes>(to + (i * kSide + j) * plane, value); });
}

// Products of P tiles with Q vectors of output channels, at one position: `pixels` is (vectors,
// pitch, lanes), `kernel` (vectors, lanes, Q lanes), `to` (P, Q lanes).
template <int P, int Q>
void multiply(const float* pixels, const float* kernel, float* to, int64_t vectors) {
  Lanes sum[P][Q] = {};
  for (int64_t v = 0; v < vectors; ++v) {
    const float* x = pixels + v * kPitch * kLanes;
    for (int c = 0; c < kLanes; ++c, ++x, kernel += Q * kLanes) {
      Lanes weights[Q];
      JAXSEG_UNROLL
      for (int q = 0; q < Q; ++q) weights[q] = load<kLanes>(kernel + q * kLanes);
      JAXSEG_UNROLL
      for (int p = 0; p < P; ++p) {
        const float pixel = x[p * kLanes];
        JAXSEG_UNROLL
        for (int q = 0; q < Q; ++q) sum[p][q] += pixel * weights[q];
      }
    }
  }
  JAXSEG_UNROLL
  for (int p = 0; p < P; ++p) {
    JAXSEG_UNROLL
    for (int q = 0; q < Q; ++q) store<kLanes>(to + (p * Q + q) * kLanes, sum[p][q]);
  }
}

// G k G^T for Q vectors of output channels, from `first` on, of the input channels `from` to `until`.
// `to` is 36 planes (in, Q lanes) that lie `plane` apart. `turned` as in `pack`.
template <int Q>
void pack_transformed(const float* kernel, float* to, int64_t plane, const Shape& s, int64_t first,
                      int64_t from, int64_t until, bool turned) {
  for (int64_t c = from; c < until; ++c)
    for (int q = 0; q < Q; ++q) {
      const int64_t o = first + q * kLanes;
      const auto get = [&](int i, int j) {
        if (!turned) return load<kLanes>(kernel + ((i * 3 + j) * s.in + c) * s.out + o);
        const float* weight = kernel + (((2 - i) * 3 + 2 - j) * s.out + o) * s.in + c;
        Lanes weights;
        for (int k = 0; k < kLanes; ++k) weights[k] = weight[k * s.in];
        return weights;
      };
      both_sides<3, kSide>(transform_kernel, get, [&](int i, int j, Lanes value) {
        store<kLanes>(to + (i * kSide + j) * plane + (c * Q + q) * kLanes, value);
      });
    }
}

// Transforms the sums of one tile of Q vectors of output channels, and stores the pixels that are in
// the image. `sums` is (36, group, Q lanes) from the tile on.
template <int Q>
inline void transform_result(const float* sums, float* result, const Place& place, const Shape& s) {
  const int64_t top = place.row * kTile, left = place.column * kTile;
  const int64_t down = s.height - top, right = s.width - left;
  float* to = result + ((place.image * s.height + top) * s.width + left) * s.out;
  for (int q = 0; q < Q; ++q, sums += kLanes, to += kLanes)
    both_sides<kSide, kTile>(
        transform_sums,
        [&](int i, int j) { return load<kLanes>(sums + (i * kSide + j) * kGroup * Q * kLanes); },
        [&](int i, int j, Lanes value) {
          if (i < down && j < right) store<kLanes>(to + (i * s.width + j) * s.out, value);
        });
}

template <int Q>
void winograd_blocks(xla::ffi::ThreadPool& pool, const float* images, const float* kernel,
                     float* result, const Shape& s, bool turned) {
  constexpr int P = kSums / Q;
  const Tiles tiles(s);
  const int64_t vectors = s.in / kLanes, blocks = s.out / (Q * kLanes);
  // Odd multiples of a vector apart, planes and rows do not fall into the same sets of the cache.
  const int64_t plane = (s.in * Q + 1) * kLanes, packed_size = kPositions * plane;
  Borrowed scratch;
  float* packed = scratch.floats(blocks * packed_size + s.in);
  float* outside = packed + blocks * packed_size;
  std::fill_n(outside, s.in, 0.0f);
  share(pool, blocks * vectors, [&](int64_t piece) {
    const int64_t block = piece / vectors, c = piece % vectors * kLanes;
    pack_transformed<Q>(kernel, packed + block * packed_size, plane, s, block * Q * kLanes, c,
                        c + kLanes, turned);
  });
  // A piece of work is a group of tiles times some blocks of output channels.
  const int64_t groups = (tiles.count + kGroup - 1) / kGroup;
  const int64_t wanted = 4 * std::max<int64_t>(pool.num_threads(), 1);
  const int64_t parts = std::clamp<int64_t>(wanted / groups, 1, blocks);
  share(pool, groups * parts, [&](int64_t piece) {
    const int64_t group = piece / parts, part = piece % parts;
    const int64_t first = tiles.count * group / groups;
    const int64_t count = tiles.count * (group + 1) / groups - first;
    thread_local Scratch pixels_scratch, sums_scratch;
    float* pixels = pixels_scratch.floats(kPositions * s.in * kPitch);
    float* sums = sums_scratch.floats(kPositions * kGroup * Q * kLanes);
    Place place(tiles, first);
    for (int64_t t = 0; t < count; ++t, place.next(tiles))
      transform_tile(Window<kSide>(images, outside, place, 1, s, s.in), pixels + t * kLanes,
                     vectors, transform_pixels);
    for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
      for (int64_t k = 0; k < kPositions; ++k)
        for (int64_t t = 0; t < count; t += P)
          multiply<P, Q>(pixels + (k * vectors * kPitch + t) * kLanes,
                         packed + block * packed_size + k * plane,
                         sums + (k * kGroup + t) * Q * kLanes, vectors);
      place = Place(tiles, first);
      for (int64_t t = 0; t < count; ++t, place.next(tiles))
        transform_result<Q>(sums + t * Q * kLanes, result + block * Q * kLanes, place, s);
    }
  });
}

// Whether the algorithm supports a shape, and saves products.
inline bool suits_winograd(const Shape& s) {
  return s.in % kLanes == 0 && s.out % kLanes == 0 && s.height >= kTile && s.width >= kTile;
}

// Like `convolve`, for shapes that suit. The order of summation depends on the shape alone.
inline void winograd(xla::ffi::ThreadPool& pool, const float* images, const float* kernel,
                     float* result, const Shape& s, bool turned) {
  const auto run = s.out % (2 * kLanes) ? winograd_blocks<1> : winograd_blocks<2>;
  run(pool, images, kernel, result, s, turned);
}

}  // namespace jaxseg
