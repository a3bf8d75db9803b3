// Covariances of linear arrays as moments of the wave around its strongest beam, and what a network reads from them, one
// vector of links at a time; see ``physics/dcp/covariance/moments.py`` and ``network.py``, whose equations these are.

#include "lanes.hpp"
#include "peaks.hpp"

namespace cfpos {

struct Moments {
    int64_t size, num_angles;  // L and A
    double step, loading, least_width, least_snr_db, most_snr_db;
    // ``beams`` [2 L, padded(A)]: sums of diagonals to the power of every beam; ``polynomials`` [L, L]: by place and
    // degree; ``answers`` [L]
    const float *beams, *polynomials;
    const double* answers;
    const float *covariance, *snr_db;  // [N, L, L, 2], [N]
    float *values, *beam_rad;          // [N, F] or null, [N]
};

// Two hidden layers with SiLU; all weights [inputs, outputs].
struct Network {
    int64_t width, outputs;
    double feature_limit;
    const float *mean, *scale, *first, *first_bias, *second, *second_bias, *last, *last_bias;
    float* found;  // [N, outputs]
};

struct FloatLanes {
    float at[LANES];
};

struct DoubleLanes {
    double at[LANES];
};

// Room for one vector of links.
struct Desk {
    std::vector<FloatLanes> re, im, half_re, half_im;
    std::vector<DoubleLanes> factor;
    std::vector<FloatLanes> features, hidden, deeper;
    Rows rows;
    float* profile;

    Desk(int size, int num_angles, int64_t num_features, int64_t width)
        : re(size * size), im(size * size), half_re(size * size), half_im(size * size), factor(size * size),
          features(num_features), hidden(width), deeper(width), rows(1, padded(num_angles)), profile(rows.take()) {}
};

// Direction in [0, pi] of the strongest beam of one covariance with trace 1 / per_trace.
float strongest_beam(const Moments& given, const float* matrix, float per_trace, float* profile) {
    const int size = int(given.size), width = padded(int(given.num_angles));
    std::fill(profile, profile + width, 0.0f);
    for (int lag = 0; lag < size; ++lag) {
        float re = 0.0f, im = 0.0f;
        for (int i = lag; i < size; ++i) {
            const float *lower = matrix + 2 * (i * size + i - lag), *upper = matrix + 2 * ((i - lag) * size + i);
            re += lag ? lower[0] + upper[0] : lower[0];
            im += lag ? lower[1] - upper[1] : 0.0f;
        }
        re *= per_trace;
        im *= per_trace;
        const float *of_re = given.beams + 2 * lag * width, *of_im = of_re + width;
        VECTORISED for (int i = 0; i < width; ++i) profile[i] += re * of_re[i] + im * of_im[i];
    }
    return refined_peak(profile, int(given.num_angles)).angle_rad;
}

// Covariances, averaged with their adjoints and turned so that the strongest beam lies across the array: the lower half
// of S_(i, j) = R_(i, j) w^(j - i), w = exp(-2 pi j (Delta / lambda) cos beam).
void steer(const Moments& given, const float* const (&matrices)[LANES], const float (&per_trace)[LANES],
           const bool (&mirrored)[LANES], const float (&folded)[LANES], Desk& desk) {
    const int size = int(given.size);
    float step_re[LANES], step_im[LANES], turn_re[LANES], turn_im[LANES];
    VECTORISED for (int lane = 0; lane < LANES; ++lane) {
        const float phase = float(given.step) * cos_of(folded[lane]);
        step_re[lane] = cos_of(phase);
        step_im[lane] = sin_of(phase);
        turn_re[lane] = 1.0f;
        turn_im[lane] = 0.0f;
    }
    for (int lag = 0; lag < size; ++lag) {
        for (int i = lag; i < size; ++i) {
            const int j = i - lag;
            FloatLanes &re = desk.re[i * size + j], &im = desk.im[i * size + j];
            for (int lane = 0; lane < LANES; ++lane) {
                const float *lower = matrices[lane] + 2 * (i * size + j), *upper = matrices[lane] + 2 * (j * size + i);
                const float share = 0.5f * per_trace[lane];
                re.at[lane] = (lower[0] + upper[0]) * share;
                im.at[lane] = (lower[1] - upper[1]) * (mirrored[lane] ? -share : share);
            }
            VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                const float x = re.at[lane], y = im.at[lane];
                re.at[lane] = x * turn_re[lane] - y * turn_im[lane];
                im.at[lane] = x * turn_im[lane] + y * turn_re[lane];
            }
        }
        VECTORISED for (int lane = 0; lane < LANES; ++lane) {
            const float x = turn_re[lane];
            turn_re[lane] = x * step_re[lane] - turn_im[lane] * step_im[lane];
            turn_im[lane] = x * step_im[lane] + turn_im[lane] * step_re[lane];
        }
    }
}

// Lower half of Re(Q^H S Q), Q the polynomials times i^degree, into factor.
void find_moments(const Moments& given, Desk& desk) {
    const int size = int(given.size);
    const float* p = given.polynomials;
    for (int i = 0; i < size; ++i)
        for (int b = 0; b < size; ++b) {
            FloatLanes re{}, im{};
            for (int j = 0; j < size; ++j) {
                const bool is_lower = j <= i;
                const FloatLanes& x = desk.re[is_lower ? i * size + j : j * size + i];
                const FloatLanes& y = desk.im[is_lower ? i * size + j : j * size + i];
                const float weight = p[j * size + b], signed_weight = is_lower ? weight : -weight;
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    re.at[lane] += weight * x.at[lane];
                    im.at[lane] += signed_weight * y.at[lane];
                }
            }
            desk.half_re[i * size + b] = re;
            desk.half_im[i * size + b] = im;
        }
    for (int a = 0; a < size; ++a)
        for (int b = 0; b <= a; ++b) {
            // Re(i^(b - a) (X + i Y)): X, Y, -X, -Y as a - b is 0, 1, 2, 3 modulo 4.
            const int quarter = (a - b) % 4;
            const std::vector<FloatLanes>& half = quarter % 2 ? desk.half_im : desk.half_re;
            FloatLanes total{};
            for (int i = 0; i < size; ++i) {
                const float weight = quarter < 2 ? p[i * size + a] : -p[i * size + a];
                VECTORISED for (int lane = 0; lane < LANES; ++lane)
                    total.at[lane] += weight * half[i * size + b].at[lane];
            }
            VECTORISED for (int lane = 0; lane < LANES; ++lane)
                desk.factor[a * size + b].at[lane] = total.at[lane] + (a == b ? given.loading : 0.0);
        }
}

// The triangular factor, its columns over their pivots; the pivots themselves on the diagonal.
void factorise(int size, std::vector<DoubleLanes>& factor) {
    for (int j = 0; j < size; ++j)
        for (int i = j; i < size; ++i) {
            DoubleLanes& out = factor[i * size + j];
            for (int k = 0; k < j; ++k) {
                const DoubleLanes &a = factor[i * size + k], &b = factor[j * size + k], &pivot = factor[k * size + k];
                VECTORISED for (int lane = 0; lane < LANES; ++lane)
                    out.at[lane] -= a.at[lane] * b.at[lane] * (pivot.at[lane] * pivot.at[lane]);
            }
            if (i == j) {
                VECTORISED for (int lane = 0; lane < LANES; ++lane)
                    out.at[lane] = std::sqrt(out.at[lane] > 1e-12 ? out.at[lane] : 1e-12);
            } else {
                const DoubleLanes& pivot = factor[j * size + j];
                VECTORISED for (int lane = 0; lane < LANES; ++lane)
                    out.at[lane] /= pivot.at[lane] * pivot.at[lane];
            }
        }
}

// What the factor foretells of the ratios of its pivots, and over the measured ones, for all links of the vector.
void find_widths(const Moments& given, const std::vector<DoubleLanes>& factor, int k, FloatLanes& told, FloatLanes& off) {
    const int size = int(given.size);
    const double* answer = given.answers;
    const auto entry = [&](int i, int j, int lane) { return factor[i * size + j].at[lane] * (answer[j] / answer[i]); };
    VECTORISED for (int lane = 0; lane < LANES; ++lane) {
        const double next = entry(k + 1, k, lane);
        const double before = k ? entry(k + 1, k - 1, lane) : 0.0, last = k ? entry(k, k - 1, lane) : 0.0;
        const double foretold = entry(k + 2, k, lane) - before - (next - last) * next;
        const double ratio = factor[(k + 1) * size + k + 1].at[lane] / factor[k * size + k].at[lane] *
                             (answer[k] / answer[k + 1]);
        told.at[lane] = log_of(float(std::fabs(foretold) > given.least_width ? std::fabs(foretold) : given.least_width));
        off.at[lane] = clamped(float(foretold / (ratio * ratio) - 1.0), -2.0f, 2.0f);
    }
}

typedef float Half __attribute__((vector_size(2 * LANES)));

INLINE Half half_of(const float* from) {
    Half half;
    std::memcpy(&half, from, sizeof half);
    return half;
}

// N outputs of a layer over one vector of links, whose sums stay in registers.
template <int N>
INLINE void some_outputs(const FloatLanes* in, int64_t inputs, const float* weights, int64_t stride, const float* bias,
                         FloatLanes* out) {
    Half sums[N][2];
    for (int n = 0; n < N; ++n)
        for (int half = 0; half < 2; ++half) sums[n][half] = Half{} + bias[n];
    for (int64_t i = 0; i < inputs; ++i, weights += stride) {
        const Half signal[2] = {half_of(in[i].at), half_of(in[i].at + LANES / 2)};
        for (int n = 0; n < N; ++n)
            for (int half = 0; half < 2; ++half) sums[n][half] += weights[n] * signal[half];
    }
    for (int n = 0; n < N; ++n)
        for (int half = 0; half < 2; ++half) std::memcpy(out[n].at + half * LANES / 2, &sums[n][half], sizeof(Half));
}

// A layer over one vector of links.
void layer(const FloatLanes* in, int64_t inputs, const float* weights, const float* bias, int64_t outputs, bool bends,
           FloatLanes* out) {
    constexpr int AT_ONCE = 4;
    int64_t first = 0;
    for (; first + AT_ONCE <= outputs; first += AT_ONCE)
        some_outputs<AT_ONCE>(in, inputs, weights + first, outputs, bias + first, out + first);
    for (; first < outputs; ++first) some_outputs<1>(in, inputs, weights + first, outputs, bias + first, out + first);
    if (!bends) return;
    for (int64_t n = 0; n < outputs; ++n)
        VECTORISED for (int lane = 0; lane < LANES; ++lane)
            out[n].at[lane] = out[n].at[lane] / (1.0f + exp_of(-out[n].at[lane]));
}

void read_links(const Network& network, Desk& desk, int64_t start, int count) {
    const auto inputs = int64_t(desk.features.size());
    const float limit = float(network.feature_limit);
    for (int64_t i = 0; i < inputs; ++i)
        VECTORISED for (int lane = 0; lane < LANES; ++lane)
            desk.features[i].at[lane] =
                clamped((desk.features[i].at[lane] - network.mean[i]) / network.scale[i], -limit, limit);
    layer(desk.features.data(), inputs, network.first, network.first_bias, network.width, true, desk.hidden.data());
    layer(desk.hidden.data(), network.width, network.second, network.second_bias, network.width, true,
          desk.deeper.data());
    layer(desk.deeper.data(), network.width, network.last, network.last_bias, network.outputs, false,
          desk.hidden.data());
    for (int lane = 0; lane < count; ++lane)
        for (int64_t n = 0; n < network.outputs; ++n)
            network.found[(start + lane) * network.outputs + n] = desk.hidden[n].at[lane];
}

void link_moments(const Moments& given, const Network* network, int64_t first, int64_t last) {
    const int size = int(given.size);
    const int64_t features = size + size * (size - 1) / 2 + 2 * std::max(size - 2, 0) + 3;
    Desk desk(size, int(given.num_angles), features, network ? std::max(network->width, network->outputs) : 0);
    for (int64_t start = first; start < last; start += LANES) {
        const int count = int(std::min<int64_t>(LANES, last - start));
        const float* matrices[LANES];
        float per_trace[LANES], folded[LANES], level[LANES];
        bool mirrored[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const int64_t link = start + std::min(lane, count - 1);
            matrices[lane] = given.covariance + 2 * link * size * size;
            level[lane] = clamped(given.snr_db[link], float(given.least_snr_db), float(given.most_snr_db)) * 0.1f;
            float trace = 0.0f;
            for (int i = 0; i < size; ++i) trace += matrices[lane][2 * (i * size + i)];
            per_trace[lane] = 1.0f / trace;
            const float beam = strongest_beam(given, matrices[lane], per_trace[lane], desk.profile);
            given.beam_rad[link] = beam;
            mirrored[lane] = beam > 0.5f * PI;
            folded[lane] = mirrored[lane] ? PI - beam : beam;
        }
        steer(given, matrices, per_trace, mirrored, folded, desk);
        find_moments(given, desk);
        factorise(size, desk.factor);
        int64_t column = 0;
        const auto keep = [&](const auto& of_lane) {
            FloatLanes& row = desk.features[column++];
            VECTORISED for (int lane = 0; lane < LANES; ++lane) row.at[lane] = of_lane(lane);
        };
        for (int i = 0; i < size; ++i)
            keep([&](int lane) { return log_of(float(desk.factor[i * size + i].at[lane])); });
        for (int i = 1; i < size; ++i)
            for (int j = 0; j < i; ++j) keep([&](int lane) { return float(desk.factor[i * size + j].at[lane]); });
        for (int k = 0; k + 2 < size; ++k, column += 2)
            find_widths(given, desk.factor, k, desk.features[column], desk.features[column + 1]);
        keep([&](int lane) { return sin_of(folded[lane]); });
        keep([&](int lane) { return cos_of(folded[lane]); });
        keep([&](int lane) { return level[lane]; });
        for (int64_t feature = 0; given.values && feature < features; ++feature)
            for (int lane = 0; lane < count; ++lane)
                given.values[(start + lane) * features + feature] = desk.features[feature].at[lane];
        if (network) read_links(*network, desk, start, count);
    }
}

}  // namespace cfpos

// ``network`` may be null.
extern "C" void cfpos_link_moments(const cfpos::Moments* given, const cfpos::Network* network, int64_t links,
                                   int threads) {
    cfpos::for_parts(links, threads, 256,
                     [&](int64_t first, int64_t last) { cfpos::link_moments(*given, network, first, last); });
}
