// Blocks of matrix products that stay in registers. Matrices lie in panels of PANEL columns, [panel, row, PANEL].
#pragma once

#include "winograd.hpp"

namespace cfpos {

constexpr int PANEL = 16;
constexpr int SIDES = PANEL / SIDE;
#ifdef __AVX512F__
constexpr int HEIGHT = 12;  // rows of a block: as many sums as hide the latency of an addition
#else
constexpr int HEIGHT = 6;
#endif

// How the left factor is read: its rows are rows of a panel, or columns of one (it is transposed).
enum class Left { ROWS, COLUMNS };

// Steps of ``inner`` numbers along the common dimension, ``outer`` times, and that ``taps`` times.
template <class T>
struct Factors {
    const T *left, *right;
    int64_t left_outer, right_outer, outer, inner;
    int64_t left_tap = 0, right_tap = 0, taps = 1;
};

// out[row, :] (+)= sum over taps, o and k of left[row, tap, o, k] right[tap, o, k, :] for N rows.
template <class T, int N, Left READ, bool ADDS>
INLINE void block(const Factors<T>& f, T* out) {
    constexpr int ROW = READ == Left::ROWS ? PANEL : 1, STEP = READ == Left::ROWS ? 1 : PANEL;
    Side<T> sums[N][SIDES];
    for (int row = 0; row < N; ++row)
        for (int s = 0; s < SIDES; ++s) sums[row][s] = ADDS ? side(out + row * PANEL + s * SIDE) : Side<T>{};
    int64_t tap = 0;
    do {
        int64_t o = 0;
        do {
            const T* left = f.left + tap * f.left_tap + o * f.left_outer;
            const T* right = f.right + tap * f.right_tap + o * f.right_outer;
            int64_t k = READ == Left::ROWS ? PANEL : f.inner;
            do {
                Side<T> columns[SIDES];
                for (int s = 0; s < SIDES; ++s) columns[s] = side(right + s * SIDE);
                for (int row = 0; row < N; ++row)
                    for (int s = 0; s < SIDES; ++s) sums[row][s] += left[row * ROW] * columns[s];
                left += STEP;
                right += PANEL;
            } while (--k);
        } while (++o < f.outer);
    } while (++tap < f.taps);
    for (int row = 0; row < N; ++row)
        for (int s = 0; s < SIDES; ++s) put<T>(sums[row][s], out + row * PANEL + s * SIDE);
}

// ``rows`` rows and one panel of columns of a product.
template <class T, Left READ, bool ADDS>
void multiply(Factors<T> f, int64_t rows, T* out) {
    constexpr int ROW = READ == Left::ROWS ? PANEL : 1;
    for (; rows >= HEIGHT; rows -= HEIGHT, f.left += HEIGHT * ROW, out += HEIGHT * PANEL) block<T, HEIGHT, READ, ADDS>(f, out);
    for (; rows >= 4; rows -= 4, f.left += 4 * ROW, out += 4 * PANEL) block<T, 4, READ, ADDS>(f, out);
    for (; rows; --rows, f.left += ROW, out += PANEL) block<T, 1, READ, ADDS>(f, out);
}

}  // namespace cfpos
