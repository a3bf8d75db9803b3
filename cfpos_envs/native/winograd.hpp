// Minimal filtering F(4, 3) of Winograd (Lavin & Gray 2016, arXiv:1509.09308): four outputs of a filter of three taps from
// six products instead of twelve, in two dimensions sixteen from 36 instead of 144. Exact but for rounding. Every function
// works on SIDE channels of one tile at a time; a tile of inputs overlaps the next one by two.
#pragma once

#include "lanes.hpp"

namespace cfpos {

constexpr int OUT = 4, TAPS = 3, IN = OUT + TAPS - 1;
#ifdef __AVX512F__
constexpr int SIDE = 16;
#else
constexpr int SIDE = 8;  // numbers of a vector register
#endif

template <class T>
struct Lanes {
    typedef T Type __attribute__((vector_size(SIDE * sizeof(T))));
};
template <class T>
using Side = typename Lanes<T>::Type;

template <class T>
INLINE Side<T> side(const T* from) {
    Side<T> vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

template <class T>
INLINE void put(const Side<T>& vector, T* to) {
    std::memcpy(to, &vector, sizeof vector);
}

// B^T d: six inputs to six frequencies.
template <class V>
INLINE void to_frequencies(const V (&d)[IN], V (&f)[IN]) {
    const V even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    const V near = d[4] - d[2], far = 2 * (d[3] - d[1]);
    f[0] = 4 * d[0] - 5 * d[2] + d[4];
    f[1] = even + odd;
    f[2] = even - odd;
    f[3] = near + far;
    f[4] = near - far;
    f[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// B f: the transpose of ``to_frequencies``.
template <class V>
INLINE void from_frequencies(const V (&f)[IN], V (&d)[IN]) {
    const V sum = f[1] + f[2], difference = f[1] - f[2], far_sum = f[3] + f[4], far = 2 * (f[3] - f[4]);
    d[0] = 4 * f[0];
    d[1] = -4 * difference - far + 4 * f[5];
    d[2] = -5 * f[0] - 4 * sum - far_sum;
    d[3] = difference + far - 5 * f[5];
    d[4] = f[0] + sum + far_sum;
    d[5] = f[5];
}

// A^T m: six products to four outputs.
template <class V>
INLINE void to_outputs(const V (&m)[IN], V (&y)[OUT]) {
    const V sum = m[1] + m[2], difference = m[1] - m[2], far_sum = m[3] + m[4], far = m[3] - m[4];
    y[0] = m[0] + sum + far_sum;
    y[1] = difference + 2 * far;
    y[2] = sum + 4 * far_sum;
    y[3] = difference + 8 * far + m[5];
}

// A y: the transpose of ``to_outputs``.
template <class V>
INLINE void from_outputs(const V (&y)[OUT], V (&m)[IN]) {
    const V even = y[0] + y[2], odd = y[1] + y[3], far_even = y[0] + 4 * y[2], far_odd = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = far_even + far_odd;
    m[4] = far_even - far_odd;
    m[5] = y[3];
}

// G g: three taps to six frequencies.
template <class V>
INLINE void from_taps(const V (&g)[TAPS], V (&u)[IN]) {
    const V ends = (g[0] + g[2]) / 6, far_ends = g[0] / 24 + g[2] / 6;
    u[0] = g[0] / 4;
    u[1] = -ends - g[1] / 6;
    u[2] = -ends + g[1] / 6;
    u[3] = far_ends + g[1] / 12;
    u[4] = far_ends - g[1] / 12;
    u[5] = g[2];
}

// G^T u: the transpose of ``from_taps``.
template <class V>
INLINE void to_taps(const V (&u)[IN], V (&g)[TAPS]) {
    const V sum = u[1] + u[2], far_sum = u[3] + u[4];
    g[0] = u[0] / 4 - sum / 6 + far_sum / 24;
    g[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12;
    g[2] = (far_sum - sum) / 6 + u[5];
}

}  // namespace cfpos
