// The highest point of a profile over directions from 0 to pi, see ``profile_peak``.
#pragma once

#include "lanes.hpp"

namespace cfpos {

// Index of the first largest of n values, in rows with room for whole vectors.
inline int first_largest(const float* values, int n) {
    float largest = values[0];
    _Pragma("omp simd reduction(max : largest)") for (int i = 0; i < n; ++i) largest = most(largest, values[i]);
    return int(std::find(values, values + n, largest) - values);
}

struct Peak {
    float angle_rad, value;
};

// Direction of the maximum, refined by a parabola through it and its neighbours, and the value on the grid.
inline Peak refined_peak(const float* profile, int num_angles) {
    const int last = num_angles - 1, best = first_largest(profile, num_angles);
    const int inner = std::min(std::max(best, 1), last - 1);
    const float left = profile[inner - 1], centre = profile[inner], right = profile[inner + 1];
    const float curvature = left - 2.0f * centre + right;
    // Where no parabola opens downwards (a peak on the border of a noisy profile) the grid point is the answer.
    float place = float(best);
    if (curvature < 0.0f)
        place = float(inner) + clamped(0.5f * (left - right) / least(curvature, -1e-12f), -1.0f, 1.0f);
    return {clamped(place * (PI / float(last)), 0.0f, PI), profile[best]};
}

}  // namespace cfpos
