// What the loops of the estimators that read channels over surfaces share: complex numbers, small systems of equations.
#pragma once

#include "lanes.hpp"

#include <limits>

namespace cfpos {

// std::complex looks for infinities in every product.
struct Complex {
    double re, im;
};

INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
INLINE Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
// conj(a) b
INLINE Complex inner(Complex a, Complex b) { return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re}; }
INLINE double power(Complex a) { return a.re * a.re + a.im * a.im; }

INLINE double over(double a, double b) { return a / b; }

INLINE Complex over(Complex a, Complex b) {
    const Complex product = inner(b, a);
    const double size = power(b);
    return {product.re / size, product.im / size};
}

// A x = b by elimination with pivots, A destroyed, b becomes x; what is singular is not finite.
template <typename Number, typename Size>
void solve(Number* a, Number* b, int n, const Size& size) {
    for (int k = 0; k < n; ++k) {
        int pivot = k;
        for (int i = k + 1; i < n; ++i)
            if (size(a[i * n + k]) > size(a[pivot * n + k])) pivot = i;
        for (int j = 0; j < n && pivot != k; ++j) std::swap(a[k * n + j], a[pivot * n + j]);
        if (pivot != k) std::swap(b[k], b[pivot]);
        for (int i = k + 1; i < n; ++i) {
            const Number share = over(a[i * n + k], a[k * n + k]);
            for (int j = k + 1; j < n; ++j) a[i * n + j] = a[i * n + j] - share * a[k * n + j];
            b[i] = b[i] - share * b[k];
        }
    }
    for (int k = n - 1; k >= 0; --k) {
        for (int j = k + 1; j < n; ++j) b[k] = b[k] - a[k * n + j] * b[j];
        b[k] = over(b[k], a[k * n + k]);
    }
}

struct Symmetric {
    double xx, xy, xz, yy, yz, zz;
};

INLINE Symmetric inverse(const Symmetric& m) {
    const double a = m.yy * m.zz - m.yz * m.yz, b = m.xz * m.yz - m.xy * m.zz, c = m.xy * m.yz - m.xz * m.yy;
    const double scale = 1.0 / (m.xx * a + m.xy * b + m.xz * c);
    return {a * scale, b * scale, c * scale, (m.xx * m.zz - m.xz * m.xz) * scale,
            (m.xy * m.xz - m.xx * m.yz) * scale, (m.xx * m.yy - m.xy * m.xy) * scale};
}

INLINE void apply(const Symmetric& m, const double* v, double* out) {
    out[0] = m.xx * v[0] + m.xy * v[1] + m.xz * v[2];
    out[1] = m.xy * v[0] + m.yy * v[1] + m.yz * v[2];
    out[2] = m.xz * v[0] + m.yz * v[1] + m.zz * v[2];
}

}  // namespace cfpos
