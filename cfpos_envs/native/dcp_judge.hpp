// How well predictions at a point match what was measured: the repaired similarities of scenarios/dcp/similarity.py.
#pragma once

#include "dcp_links.hpp"

namespace cfpos {

constexpr float CAUCHY_SCALE_DB = 0.5f;
constexpr int FEW_POINTS = 4;

// What decides how a point is judged.
struct Judges {
    const float* shares;     // [width] weights of the judging access points
    float use_rss, use_aoa;  // in {0, 1}: whether RSS and AOA count this round
};

// Measured minus predicted RSS, dB; the law for very many links (RssLaw).
template <bool SHORT_LAW>
INLINE float rss_residual_db(const Game& game, float measured_dbm, float slant_square_m2) {
    if (!SHORT_LAW) return measured_dbm - predicted_dbm(game, slant_square_m2);
    const float of_noise = ((game.law[3] * slant_square_m2 + game.law[2]) * slant_square_m2 + game.law[1])
            * slant_square_m2 + game.law[0];
    return measured_dbm - signal_dbm(game, slant_square_m2) - of_noise;
}

// Log-likelihood of one scaled residual: Student-t with nu = 4, or Cauchy.
template <int KIND>
INLINE float log_likelihood(float z) {
    return KIND == ROBUST ? -2.5f * log_of(1.0f + 0.25f * z * z) : -log_of(1.0f + z * z);
}

// What one access point says about one point, from the displacement between them.
struct Verdict {
    float rss, aoa;
};

// Its terms of the similarity before they are averaged. For ``log`` they are the squared residual of the RSS and the
// angle, at which the profile is to be read.
template <bool RSS, bool AOA, int KIND, bool SHORT_LAW>
INLINE Verdict judge_link(const Links& links, int m, float point_x_m, float point_y_m, float per_mad) {
    const float x = nearest_image(links.game, point_x_m - links.site.x_m[m]);
    const float y = nearest_image(links.game, point_y_m - links.site.y_m[m]);
    Verdict verdict{0.0f, 0.0f};
    if (RSS) {
        const float slant = most(x * x + y * y + links.site.height_square_m2[m], 0.01f);
        const float residual_db = rss_residual_db<SHORT_LAW>(links.game, links.rss_dbm[m], slant);
        const float per_db = 1.0f / (KIND == ROBUST ? links.rss_scale_db[m] : CAUCHY_SCALE_DB);
        verdict.rss = KIND == LOG ? residual_db * residual_db : log_likelihood<KIND>(residual_db * per_db);
    }
    if (AOA) {
        const Direction towards = direction(links.site.axis_x[m], links.site.axis_y[m], x, y);
        const float scaled = (links.bearing_rad[m] - towards.folded_rad) * (per_mad / links.nominal_rad[m]);
        verdict.aoa = KIND == LOG ? towards.folded_rad : log_likelihood<KIND>(scaled);
    }
    return verdict;
}

// Similarity at count points, into values; x_m, y_m and values have room for whole vectors.
template <bool RSS, bool AOA, int KIND, bool SHORT_LAW>
void judge_points(const Links links, const Judges judges, const float* x_m, const float* y_m, int count,
                  float* values) {
    const float per_mad = 1.0f / (KIND == ROBUST ? links.bearing_mad : 1.0f);
    const auto finished = [&](float rss, float aoa) {
        // The similarity ``log``: -ln(rms + 0.05) and -ln(1 - Xi^a).
        if (KIND == LOG) {
            rss = -log_of(std::sqrt(rss + 1e-12f) + 0.05f);
            aoa = -log_of(most(1.0f - aoa, 1e-6f));
        }
        return (RSS ? rss : 0.0f) + (AOA ? aoa : 0.0f);
    };
    // Few points: a vector of access points at a time. Many: a vector of points.
    const bool few = count < FEW_POINTS;
    for (int point = 0; point < count; point += few ? 1 : LANES) {
        float rss[LANES] = {}, aoa[LANES] = {};
        for (int first = 0; first < (few ? links.width : links.count); first += few ? LANES : 1) {
            float rss_terms[LANES], aoa_terms[LANES], shares[LANES];
            int32_t rows[LANES];
            if (few)
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    const int m = first + lane;
                    const Verdict verdict = judge_link<RSS, AOA, KIND, SHORT_LAW>(links, m, x_m[point], y_m[point], per_mad);
                    rss_terms[lane] = verdict.rss; aoa_terms[lane] = verdict.aoa; shares[lane] = judges.shares[m]; rows[lane] = links.row(m);
                }
            else
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    const Verdict verdict = judge_link<RSS, AOA, KIND, SHORT_LAW>(links, first, x_m[point + lane], y_m[point + lane], per_mad);
                    rss_terms[lane] = verdict.rss; aoa_terms[lane] = verdict.aoa; shares[lane] = judges.shares[first]; rows[lane] = links.row(first);
                }
            if (AOA && KIND == LOG) read_profiles(links.game, links.profiles, rows, aoa_terms);
            VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                rss[lane] += shares[lane] * rss_terms[lane];
                aoa[lane] += shares[lane] * aoa_terms[lane];
            }
        }
        if (few)
            values[point] = finished(sum(rss), sum(aoa));
        else
            VECTORISED for (int lane = 0; lane < LANES; ++lane) values[point + lane] = finished(rss[lane], aoa[lane]);
    }
}

template <int KIND, bool SHORT_LAW>
void judge_kind(const Links& links, const Judges& judges, const float* x_m, const float* y_m, int count,
                float* values) {
    const bool rss = judges.use_rss > 0.0f, aoa = judges.use_aoa > 0.0f;
    if (rss && aoa) return judge_points<true, true, KIND, SHORT_LAW>(links, judges, x_m, y_m, count, values);
    if (aoa) return judge_points<false, true, KIND, SHORT_LAW>(links, judges, x_m, y_m, count, values);
    return judge_points<true, false, KIND, SHORT_LAW>(links, judges, x_m, y_m, count, values);
}

// Similarity ``kind`` at count points, into values.
inline void judge(int kind, const Links& links, const Judges& judges, const float* x_m, const float* y_m, int count,
                  float* values) {
    using Function = void (*)(const Links&, const Judges&, const float*, const float*, int, float*);
    static constexpr Function kinds[2][3] = {
        {judge_kind<LOG, false>, judge_kind<ROBUST, false>, judge_kind<CAUCHY, false>},
        {judge_kind<LOG, true>, judge_kind<ROBUST, true>, judge_kind<CAUCHY, true>},
    };
    kinds[links.game.has_short_law ? 1 : 0][kind](links, judges, x_m, y_m, count, values);
}

struct Slope {
    float x = 0.0f, y = 0.0f;
};

// Gradient of ``robust`` or ``cauchy`` by the point, in closed form. With z the scaled residual and psi(z) = -f'(z): an
// RSS residual pulls along the line of sight by psi(z) / sigma * 2 dRSS/d(d^2), a bearing residual across it by
// psi(z) / sigma * (+-1) / d^2.
inline Slope similarity_slope(int kind, const Links links, const Judges judges, float point_x_m, float point_y_m) {
    const Game game = links.game;
    const Site site = links.site;
    const float bearing_scale = kind == ROBUST ? links.bearing_mad : 1.0f;
    // psi(z) = factor z / (nu + z^2)
    const float factor = kind == ROBUST ? 5.0f : 2.0f, nu = kind == ROBUST ? 4.0f : 1.0f;
    float slope_x[LANES] = {}, slope_y[LANES] = {};
    for (int first = 0; first < links.width; first += LANES)
        VECTORISED for (int lane = 0; lane < LANES; ++lane) {
            const int m = first + lane;
            const float x = nearest_image(game, point_x_m - site.x_m[m]);
            const float y = nearest_image(game, point_y_m - site.y_m[m]);
            const float ground = x * x + y * y;
            const float slant = most(ground + site.height_square_m2[m], 0.01f);
            const float expected_dbm = predicted_dbm(game, slant), signal = signal_dbm(game, slant);
            const float rss_scale_db = kind == ROBUST ? links.rss_scale_db[m] : CAUCHY_SCALE_DB;
            const float z = (links.rss_dbm[m] - expected_dbm) / rss_scale_db;
            // dRSS / d(d^2): that of the signal, times the signal's share of the power.
            const float steepness =
                -0.5f * game.slope_db / LN_10 / slant * exp_of((signal - expected_dbm) * (LN_10 / 10.0f));
            const float along = judges.use_rss * factor * z / (nu + z * z) / rss_scale_db * 2.0f * steepness;
            const Direction towards = direction(site.axis_x[m], site.axis_y[m], x, y);
            const float scale_rad = links.nominal_rad[m] * bearing_scale;
            const float turned = (links.bearing_rad[m] - towards.folded_rad) / scale_rad;
            // On the axis itself neither side is nearer.
            const float side = towards.across_m == 0.0f ? 0.0f : towards.side;
            const float turn = judges.use_aoa * factor * turned / (nu + turned * turned) / scale_rad * side
                    / most(ground, 1e-12f);
            slope_x[lane] += judges.shares[m] * (along * x - turn * y);
            slope_y[lane] += judges.shares[m] * (along * y + turn * x);
        }
    return {sum(slope_x), sum(slope_y)};
}

}  // namespace cfpos
