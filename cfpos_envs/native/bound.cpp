// Position error bounds of DCP episodes: the formulas of cfpos_envs/physics/dcp/bounds.py and physics/bounds.py without a
// radio map, in double precision as there.

#include "lanes.hpp"

#include <limits>

namespace cfpos {

constexpr double TURN = 6.283185307179586;
constexpr double DB_PER_NEPER = 4.342944819032518;
constexpr double SMALLEST_DISTANCE_M = 1e-3;
constexpr double SINGULAR = 1e-14;

// The fields are those of ``_Law`` in scenarios/dcp/bound_kernel.py, in its order.
struct Law {
    int32_t num_aps, num_ues, wrap, uses_rss, uses_aoa, num_snrs, num_angles;
    double side_m, intercept_db, slope_db, snr_of_unit_gain_db, first_snr_db, snr_step_db;
};

// Logarithms of the precision of one access point, by SNR and angle; see ``MeasurementStatistics``.
struct Precision {
    const double *variance_db2, *information_per_rad2;  // [S, A]
};

struct Places {
    const float *ap_positions_m, *ap_orientation_rad, *height_diff_m;  // [B, M, 2], [B, M], [B, M]
    const float *positions_m, *shadowing_std_db;                       // [B, K, 2], [B]
};

// Cell of a grid and the place in it.
struct Cell {
    Cell(double scaled, int size) {
        const double inside = std::min(std::max(scaled, 0.0), double(size - 1));
        low = int(std::min(std::floor(inside), double(size - 2)));
        share = inside - low;
    }
    int low;
    double share;
};

double nearest(double delta, const Law& law) {
    return law.wrap ? delta - law.side_m * std::nearbyint(delta * (1.0 / law.side_m)) : delta;
}

// Geometric in the SNR, linear in the angle.
double look_up(const double* logs, int width, const Cell& row, const Cell& column) {
    const double *low = logs + int64_t(row.low) * width + column.low, *high = low + width;
    const double near = std::exp(low[0] * (1 - row.share) + high[0] * row.share);
    const double far = std::exp(low[1] * (1 - row.share) + high[1] * row.share);
    return near * (1 - column.share) + far * column.share;
}

// sqrt(tr J^-1) of J = [a b; b c]; infinite where an eigenvalue is below rounding, or J not finite.
double bound_of(double a, double b, double c) {
    const double scale = std::max({std::fabs(a), std::fabs(b), std::fabs(c), std::numeric_limits<double>::min()});
    a /= scale, b /= scale, c /= scale;
    const double large = 0.5 * (a + c) + std::hypot(0.5 * (a - c), b);
    // The product of both is the determinant: their difference would cancel.
    const double product = b * b, lost = std::fma(b, b, -product);
    const double small = (std::fma(a, c, -product) - lost) / large;
    if (!(small > SINGULAR && large > SINGULAR)) return std::numeric_limits<double>::infinity();
    return std::sqrt((1 / small + 1 / large) / scale);
}

double bound_m(const Law& law, const Precision& known, const Places& places, int64_t episode, int user) {
    const float* point = places.positions_m + (episode * law.num_ues + user) * 2;
    const double hidden_db = places.shadowing_std_db[episode];
    double a = 0.0, b = 0.0, c = 0.0;
    for (int m = 0; m < law.num_aps; ++m) {
        const int64_t ap = episode * law.num_aps + m;
        const double x = nearest(double(point[0]) - double(places.ap_positions_m[2 * ap]), law);
        const double y = nearest(double(point[1]) - double(places.ap_positions_m[2 * ap + 1]), law);
        const double height = places.height_diff_m[ap], flat = x * x + y * y, square = flat + height * height;
        const double slant = std::max(std::sqrt(square), SMALLEST_DISTANCE_M);
        const double snr_db = law.intercept_db - law.slope_db * std::log10(slant) + law.snr_of_unit_gain_db;
        const double angle = std::atan2(y, x) - double(places.ap_orientation_rad[ap]);
        const double folded = std::fabs(std::remainder(angle, TURN));
        const Cell row((snr_db - law.first_snr_db) / law.snr_step_db, law.num_snrs);
        const Cell column(folded * ((law.num_angles - 1) / (0.5 * TURN)), law.num_angles);
        if (law.uses_aoa) {
            const double distance = std::max(std::sqrt(flat), SMALLEST_DISTANCE_M);
            const double information = look_up(known.information_per_rad2, law.num_angles, row, column);
            const double weight = information / (distance * distance * distance * distance);
            a += weight * y * y, b -= weight * x * y, c += weight * x * x;
        }
        if (law.uses_rss) {
            // The noise power flattens the RSS by this share.
            const double share = 1 / (1 + std::exp(-snr_db / DB_PER_NEPER));
            const double floor = std::max(square, SMALLEST_DISTANCE_M * SMALLEST_DISTANCE_M);
            const double slope = -law.slope_db * DB_PER_NEPER / 10 / floor * share, unknown = share * hidden_db;
            const double variance = look_up(known.variance_db2, law.num_angles, row, column) + unknown * unknown;
            const double weight = slope * slope / variance;
            a += weight * x * x, b += weight * x * y, c += weight * y * y;
        }
    }
    return bound_of(a, b, c);
}

}  // namespace cfpos

extern "C" {

void cfpos_dcp_bound(const cfpos::Law* law, const cfpos::Precision* known, const cfpos::Places* places, double* bounds_m,
                     int64_t episodes, int threads) {
    cfpos::for_parts(episodes, threads, 16, [&](int64_t first, int64_t last) {
        for (int64_t episode = first; episode < last; ++episode)
            for (int user = 0; user < law->num_ues; ++user)
                bounds_m[episode * law->num_ues + user] = cfpos::bound_m(*law, *known, *places, episode, user);
    });
}

}  // extern "C"
