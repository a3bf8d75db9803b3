// Searches of the estimators that read channels over surfaces (baselines/ris: harmonics, departure, assignment,
// directions, position), in double precision. One block of samples is too small to keep an array library busy: its
// thousands of small operations would cost more than what they compute.

#include "small_algebra.hpp"

namespace cfpos {

// --- Maxima of trigonometric polynomials ---------------------------------------------------------------------------

// The fields are those of ``_Climb`` in baselines/ris/kernels.py, in its order.
struct Climb {
    int64_t rows, points, lags, steps;
    double slope, floor;
    const Complex *seen, *left;  // [rows, lags]; left may be missing
    const double *low, *high;    // [rows, points]
    double* found;               // [rows, points]
};

struct Derivatives {
    double value, first, second;
};

// Coefficients of the lags from 0 on.
struct Polynomial {
    const Complex* half;
    int64_t count;
    double slope;

    // See ``evaluate`` of harmonics.py.
    Derivatives at(double x) const {
        const Complex turn = {std::cos(slope * x), std::sin(slope * x)};
        Complex wave = {1.0, 0.0};
        Derivatives sum = {0.5 * half[0].re, 0.0, 0.0};
        for (int64_t k = 1; k < count; ++k) {
            wave = wave * turn;
            const Complex term = half[k] * wave;
            const double rate = slope * double(k);
            sum.value += term.re, sum.first -= term.im * rate, sum.second -= term.re * rate * rate;
        }
        return {2.0 * sum.value, 2.0 * sum.first, 2.0 * sum.second};
    }
};

// Maximum of seen(x) / max(left(x), floor), or of seen(x), in a bracket; see ``climb`` of harmonics.py.
double climb(const Polynomial& seen, const Polynomial* left, double floor, double low, double high, int64_t steps) {
    double x = (low + high) / 2;
    for (int64_t step = 0; step < steps; ++step) {
        const Derivatives top = seen.at(x);
        double first = top.first, second = top.second;
        if (left) {
            const Derivatives below = left->at(x);
            const double size = std::max(below.value, floor);
            first *= size, second *= size;
            if (below.value > floor) first -= top.value * below.first, second -= top.value * below.second;
        }
        (first > 0 ? low : high) = x;
        const double newton = x - first / second;
        x = second < 0 && newton >= low && newton <= high ? newton : (low + high) / 2;
    }
    return x;
}

void climb_all(const Climb& given, int64_t row) {
    const int64_t middle = given.lags / 2, count = given.lags - middle, start = row * given.lags + middle;
    const Polynomial seen = {given.seen + start, count, given.slope}, left = {given.left + start, count, given.slope};
    for (int64_t place = row * given.points; place < (row + 1) * given.points; ++place)
        given.found[place] = climb(seen, given.left ? &left : nullptr, given.floor, given.low[place],
                                   given.high[place], given.steps);
}

// --- Maxima of two-dimensional spectra -----------------------------------------------------------------------------

// The fields are those of ``_Peaks`` in baselines/ris/kernels.py, in its order.
struct Peaks {
    int64_t spectra, sizes[2], rounds, steps;
    double slopes[2], widths[2];
    const Complex* focused;  // [spectra, n1, n2]
    double* found;           // [spectra, 2]: start, then maximum
};

// See ``own_maximum`` of assignment.py: one axis after the other, each with the other one held.
void climb_axes(const Peaks& given, int64_t row) {
    const Complex* focused = given.focused + row * given.sizes[0] * given.sizes[1];
    double* found = given.found + 2 * row;
    std::vector<Complex> line, lags;
    for (int64_t turn = 0; turn < 2 * given.rounds; ++turn) {
        const int64_t axis = turn % 2, other = 1 - axis, n = given.sizes[axis];
        line.assign(n, {0.0, 0.0}), lags.assign(n, {0.0, 0.0});
        for (int64_t j = 0; j < given.sizes[other]; ++j) {
            const double phase = given.slopes[other] * double(j) * found[other];
            const Complex held = {std::cos(phase), std::sin(phase)};
            for (int64_t i = 0; i < n; ++i)
                line[i] = line[i] + inner(held, axis == 0 ? focused[i * given.sizes[1] + j] : focused[j * n + i]);
        }
        for (int64_t k = 0; k < n; ++k)
            for (int64_t i = 0; i + k < n; ++i) lags[k] = lags[k] + inner(line[i + k], line[i]);
        const Polynomial seen = {lags.data(), n, given.slopes[axis]};
        const double width = given.widths[axis];
        found[axis] = climb(seen, nullptr, 0.0, found[axis] - width, found[axis] + width, given.steps);
    }
}

// --- Direction of the line of sight --------------------------------------------------------------------------------

// The fields are those of ``_Sight`` in baselines/ris/kernels.py, in its order.
struct Sight {
    int64_t steps;
    const double *cosines, *mapping, *weight;  // [T, 4], [T, 4, 3], [T, 4, 4]: y, T and the inverse covariance of y
    double *direction, *error_map;             // [T, 3], [T, 3, 4]
};

void normalise(double* u) {
    const double length = std::sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2]);
    for (int i = 0; i < 3; ++i) u[i] /= length;
}

// H = B (B^T N B)^-1 B^T T^T W as (P N P + tr(N) u u^T)^-1 less its part along u, P the projector across u.
void error_map(const double* u, const double normal[3][3], const double weighted[3][4], double* found) {
    const double size = normal[0][0] + normal[1][1] + normal[2][2];
    double across[3][3], half[3][3], both[3][3];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) across[i][j] = double(i == j) - u[i] * u[j];
    const auto product = [](const double a[3][3], const double b[3][3], double out[3][3]) {
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) out[i][j] = a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j];
    };
    product(across, normal, half), product(half, across, both);
    const auto entry = [&](int i, int j) { return both[i][j] + size * u[i] * u[j]; };
    const Symmetric inverted =
        inverse({entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)});
    for (int k = 0; k < 4; ++k) {
        double flat[3], solved[3];
        for (int i = 0; i < 3; ++i)
            flat[i] = across[i][0] * weighted[0][k] + across[i][1] * weighted[1][k] + across[i][2] * weighted[2][k];
        apply(inverted, flat, solved);
        for (int i = 0; i < 3; ++i)
            found[4 * i + k] = across[i][0] * solved[0] + across[i][1] * solved[1] + across[i][2] * solved[2];
    }
}

// See ``line_of_sight_direction`` of directions.py.
void direct(const Sight& given, int64_t row) {
    const double *y = given.cosines + 4 * row, *mapping = given.mapping + 12 * row, *weight = given.weight + 16 * row;
    double *u = given.direction + 3 * row, *map = given.error_map + 12 * row;
    double weighted[3][4] = {}, normal[3][3] = {}, pulled[3] = {};
    for (int i = 0; i < 3; ++i) {
        for (int k = 0; k < 4; ++k)
            for (int j = 0; j < 4; ++j) weighted[i][k] += mapping[3 * j + i] * weight[4 * j + k];
        for (int k = 0; k < 4; ++k) {
            pulled[i] += weighted[i][k] * y[k];
            for (int j = 0; j < 3; ++j) normal[i][j] += weighted[i][k] * mapping[3 * k + j];
        }
    }
    apply(inverse({normal[0][0], normal[0][1], normal[0][2], normal[1][1], normal[1][2], normal[2][2]}), pulled, u);
    normalise(u);
    error_map(u, normal, weighted, map);
    for (int64_t step = 0; step < given.steps; ++step) {
        double off[4];
        for (int k = 0; k < 4; ++k)
            off[k] = y[k] - mapping[3 * k] * u[0] - mapping[3 * k + 1] * u[1] - mapping[3 * k + 2] * u[2];
        for (int i = 0; i < 3; ++i)
            for (int k = 0; k < 4; ++k) u[i] += map[4 * i + k] * off[k];
        normalise(u);
        error_map(u, normal, weighted, map);
    }
}

// --- Position and bias ---------------------------------------------------------------------------------------------

// The fields are those of ``_Fixes`` in baselines/ris/kernels.py, in its order.
struct Fixes {
    int64_t paths, grid, zoom, zooms;
    double farthest_m, nearest_m, floor;
    const double *source_m, *direction;        // [T, L, 3]
    const double *pseudo_range_m, *covariance; // [T, L], [T, L, 4, 4] of (u, t)
    const uint8_t* present;                    // [T, L]
};

// One pair's paths; room for what every bias makes of them.
class Pair {
public:
    Pair(const Fixes& fixes, int64_t row) : floor_(fixes.floor) {
        for (int64_t path = row * fixes.paths; path < (row + 1) * fixes.paths; ++path)
            if (fixes.present[path]) paths_.push_back({fixes.source_m + 3 * path, fixes.direction + 3 * path,
                                                       fixes.pseudo_range_m[path], fixes.covariance + 16 * path});
        weights_.resize(paths_.size()), said_.resize(3 * paths_.size());
    }

    double longest_m() const {
        double found = -std::numeric_limits<double>::infinity();
        for (const Path& path : paths_) found = std::max(found, path.range_m);
        return found;
    }
    double shortest_m() const {
        double found = std::numeric_limits<double>::infinity();
        for (const Path& path : paths_) found = std::min(found, path.range_m);
        return found;
    }

    // J(p(b), b) of position.py, and p(b).
    double cost(double bias_m, double* position_m) {
        Symmetric total = {0, 0, 0, 0, 0, 0};
        double pulled[3] = {0, 0, 0}, part[3];
        for (size_t l = 0; l < paths_.size(); ++l) {
            const Path& path = paths_[l];
            const double r = path.range_m - bias_m, *c = path.covariance, *u = path.direction, along = c[15];
            const auto entry = [&](int i, int j) {
                return r * r * c[4 * i + j] + r * (c[4 * i + 3] * u[j] + c[4 * j + 3] * u[i]) + along * u[i] * u[j];
            };
            Symmetric sigma = {entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)};
            const double ridge = floor_ * (sigma.xx + sigma.yy + sigma.zz);
            sigma.xx += ridge, sigma.yy += ridge, sigma.zz += ridge;
            const Symmetric weight = weights_[l] = inverse(sigma);
            double* said = &said_[3 * l];
            for (int i = 0; i < 3; ++i) said[i] = path.source_m[i] + r * u[i];
            apply(weight, said, part);
            for (int i = 0; i < 3; ++i) pulled[i] += part[i];
            total.xx += weight.xx, total.xy += weight.xy, total.xz += weight.xz;
            total.yy += weight.yy, total.yz += weight.yz, total.zz += weight.zz;
        }
        apply(inverse(total), pulled, position_m);
        double sum = 0.0;
        for (size_t l = 0; l < paths_.size(); ++l) {
            double off[3];
            for (int i = 0; i < 3; ++i) off[i] = position_m[i] - said_[3 * l + i];
            apply(weights_[l], off, part);
            sum += off[0] * part[0] + off[1] * part[1] + off[2] * part[2];
        }
        return sum;
    }

private:
    struct Path {
        const double *source_m, *direction;
        double range_m;
        const double* covariance;
    };
    double floor_;
    std::vector<Path> paths_;
    std::vector<Symmetric> weights_;
    std::vector<double> said_;
};

// The bias of least cost among ``count`` from ``low`` to ``high``.
double best_bias_m(Pair& pair, double low, double high, int64_t count) {
    double best = low, least = std::numeric_limits<double>::infinity(), position_m[3];
    for (int64_t step = 0; step < count; ++step) {
        const double share = double(step) / double(count - 1), bias = low + (high - low) * share;
        const double cost = pair.cost(bias, position_m);
        if (cost < least) least = cost, best = bias;
    }
    return best;
}

void search(const Fixes& fixes, int64_t row, double* position_m, double* bias_m) {
    Pair pair(fixes, row);
    const double low = pair.longest_m() - fixes.farthest_m, high = pair.shortest_m() - fixes.nearest_m;
    double bias = best_bias_m(pair, low, high, fixes.grid), half = std::fabs(high - low) / double(fixes.grid - 1);
    for (int64_t zoom = 0; zoom < fixes.zooms; ++zoom) {
        bias = best_bias_m(pair, bias - half, bias + half, fixes.zoom);
        half *= 2.0 / double(fixes.zoom - 1);
    }
    pair.cost(bias, position_m + 3 * row);
    bias_m[row] = bias;
}

}  // namespace cfpos

extern "C" {

void cfpos_ris_climb(const cfpos::Climb* given, int threads) {
    cfpos::for_parts(given->rows, threads, 64, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) cfpos::climb_all(*given, row);
    });
}

void cfpos_ris_peaks(const cfpos::Peaks* given, int threads) {
    cfpos::for_parts(given->spectra, threads, 64, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) cfpos::climb_axes(*given, row);
    });
}

void cfpos_ris_sight(const cfpos::Sight* given, int64_t pairs) {
    for (int64_t row = 0; row < pairs; ++row) cfpos::direct(*given, row);
}

void cfpos_ris_search(const cfpos::Fixes* fixes, double* position_m, double* bias_m, int64_t pairs, int threads) {
    cfpos::for_parts(pairs, threads, 8, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) cfpos::search(*fixes, row, position_m, bias_m);
    });
}

}  // extern "C"
