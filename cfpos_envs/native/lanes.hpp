// What the kernels share: functions that a compiler turns into vector instructions, padded rows, threads.
//
// Every function here is free of branches and of calls, so that a loop over access points that uses it runs on whole
// vectors. Polynomials are minimax fits on the stated interval; errors are relative to the largest result unless noted
// and stay below what rounding to float32 makes of the torch functions of the same name.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#define CFPOS_PRAGMA(text) _Pragma(#text)
#define VECTORISED CFPOS_PRAGMA(omp simd)
#define VECTORISED_SUM(...) CFPOS_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#define INLINE inline __attribute__((always_inline))

namespace cfpos {

constexpr int LANES = 16;  // floats of the widest vector there is; rows are padded to a multiple of it
typedef float Vector __attribute__((vector_size(4 * LANES)));
constexpr float PI = 3.14159265358979f;
constexpr float LN_10 = 2.30258509299405f;

// Room for n numbers and at least one more, in whole vectors: the spare entry stands for "no access point".
INLINE int padded(int n) { return (n / LANES + 1) * LANES; }

INLINE Vector load(const float* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

INLINE void store(Vector vector, float* to) { std::memcpy(to, &vector, sizeof vector); }

INLINE int32_t bits_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float float_of(int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float least(float a, float b) { return a < b ? a : b; }
INLINE float most(float a, float b) { return a > b ? a : b; }
INLINE float clamped(float value, float low, float high) { return least(most(value, low), high); }
INLINE float square(float value) { return value * value; }
INLINE float with_sign(float size, float sign) { return sign < 0.0f ? -size : size; }

// Natural logarithm of a positive, finite number: x = 2^e (1 + f) with f in [sqrt(1/2) - 1, sqrt(2) - 1], absolute
// error of the polynomial for ln(1 + f) below 1e-8.
INLINE float log_of(float x) {
    const int32_t bits = bits_of(x);
    const int32_t exponent = (bits - 0x3f3504f3) >> 23;
    const float f = float_of(bits - (exponent << 23)) - 1.0f;
    float p = -0.07824257761f;
    p = p * f + 0.13003943861f;
    p = p * f - 0.13207955658f;
    p = p * f + 0.14163585007f;
    p = p * f - 0.16611279547f;
    p = p * f + 0.20003011823f;
    p = p * f - 0.25001513958f;
    p = p * f + 0.33333307505f;
    p = p * f - 0.49999988079f;
    return float(exponent) * 0.69314718056f + (f + f * f * p);
}

// e^x: x = n ln 2 + r with |r| <= ln(2) / 2; what would overflow or vanish is kept at the border.
INLINE float exp_of(float x) {
    x = clamped(x, -87.0f, 88.0f);
    const float n = std::nearbyint(x * 1.44269504089f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 0.00139464761f;
    p = p * r + 0.00836888235f;
    p = p * r + 0.04166620597f;
    p = p * r + 0.16666518152f;
    p = p * r + 0.5f;
    return (1.0f + r + r * r * p) * float_of((int32_t(n) + 127) << 23);
}

// tanh x by (1 - e^(-2 |x|)) / (1 + e^(-2 |x|)), near 0 by its series; absolute error below 1e-7.
INLINE float tanh_of(float x) {
    const float size = std::fabs(x), t = x * x;
    const float fall = exp_of(-2.0f * size);
    const float far = with_sign((1.0f - fall) / (1.0f + fall), x);
    const float near = x * (1.0f + t * (-0.33333333f + t * (0.13333333f + t * (-0.05396825f + t * 0.02186949f))));
    return size < 0.25f ? near : x == x ? far : x;
}

// sin x for moderate x: x = n pi + r with |r| <= pi / 2, error 5e-9.
INLINE float sin_of(float x) {
    const float n = std::nearbyint(x * 0.31830988618f);
    const float r = (x - n * 3.140625f) - n * 9.67653589793e-4f;
    const float t = r * r;
    float p = 2.60522484e-6f;
    p = p * t - 1.9809075457e-4f;
    p = p * t + 8.3330506459e-3f;
    p = p * t - 0.16666658222f;
    const float sine = r + r * t * p;
    return (int32_t(n) & 1) ? -sine : sine;
}

INLINE float cos_of(float x) { return sin_of(x + 0.5f * PI); }

// Angle in [0, pi] of the vector (along, across) with across >= 0; 0 for the vector of length zero.
// arctan(a) / a is a polynomial in a^2 on [0, 1], error 1.4e-8.
INLINE float folded_angle(float across, float along) {
    const float ahead = std::fabs(along);
    const float a = least(across, ahead) / most(most(across, ahead), 1e-30f);
    const float t = a * a;
    float p = 0.00290351757f;
    p = p * t - 0.01628286950f;
    p = p * t + 0.04303914309f;
    p = p * t - 0.07533657551f;
    p = p * t + 0.10654668510f;
    p = p * t - 0.14207132161f;
    p = p * t + 0.19993053377f;
    p = p * t - 0.33333092928f;
    float angle = a + a * t * p;
    angle = across > ahead ? 0.5f * PI - angle : angle;
    return along < 0.0f ? PI - angle : angle;
}

// sign(x) ln(1 + |x|)
INLINE float symlog_of(float x) { return with_sign(log_of(1.0f + std::fabs(x)), x); }

INLINE float asinh_of(float x) {
    const float size = std::fabs(x);
    return with_sign(log_of(size + std::sqrt(size * size + 1.0f)), x);
}

// An index that a loop reads at, kept out of vector registers: processors gather sixteen numbers far more slowly than
// they load them one by one.
INLINE int32_t one_by_one(int32_t index) {
    asm volatile("" : "+r"(index));
    return index;
}

// Sum of a vector, by halves.
INLINE float sum(float (&values)[LANES]) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) values[lane] += values[lane + half];
    return values[0];
}

// Rows of one length, one after another, for the temporaries of one episode.
class Rows {
public:
    Rows(int count, int width) : width_(width), values_(size_t(count) * width + LANES, 0.0f) {
        // Vector loads across the border of two cache lines cost twice.
        const auto address = reinterpret_cast<uintptr_t>(values_.data());
        next_ = values_.data() + (64 - address % 64) % 64 / sizeof(float);
    }
    Rows(const Rows&) = delete;
    Rows& operator=(const Rows&) = delete;

    float* take(int rows = 1) {
        float* row = next_;
        next_ += size_t(rows) * width_;
        return row;
    }

private:
    int width_;
    std::vector<float> values_;
    float* next_;
};

// sin r for |r| <= pi / 2 in double precision: the series up to r^17 / 17!, error 4e-14.
INLINE double sine_series(double r) {
    const double t = r * r;
    double p = 1.0 / 355687428096000.0;
    p = p * t - 1.0 / 1307674368000.0;
    p = p * t + 1.0 / 6227020800.0;
    p = p * t - 1.0 / 39916800.0;
    p = p * t + 1.0 / 362880.0;
    p = p * t - 1.0 / 5040.0;
    p = p * t + 1.0 / 120.0;
    p = p * t - 1.0 / 6.0;
    return r + r * t * p;
}

// work(first, last) for parts of count episodes, in as many threads as pay. A thread that the system does not start (a
// container's limit on processes) costs speed: its part is done here.
template <class Work>
void for_parts(int64_t count, int threads, int64_t least_each, const Work& work) {
    const int64_t parts = std::min<int64_t>(threads, count / std::max<int64_t>(least_each, 1));
    if (parts < 2) return work(0, count);
    std::vector<std::thread> others;
    for (int64_t part = 1; part < parts; ++part) {
        const auto mine = [&work, count, parts, part] { work(count * part / parts, count * (part + 1) / parts); };
        try {
            others.emplace_back(mine);
        } catch (const std::system_error&) {
            mine();
        }
    }
    work(0, count / parts);
    for (std::thread& other : others) other.join();
}

}  // namespace cfpos
