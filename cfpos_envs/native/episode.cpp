// The start of a DCP episode from its number: users, links, sample covariances, spectra, bearings, held-out access points
// and the coarse first estimate, without a temporary in memory. The formulas of cfpos_envs/scenarios/dcp/world.py and
// game.py on the numbers of cfpos_envs/draws, sixteen links at a time.

#include "lanes.hpp"
#include "random.hpp"

#include <numeric>

namespace cfpos {

// The fields are those of ``_Episode`` in scenarios/dcp/episode_kernel.py, in its order.
struct Episode {
    int32_t num_aps, num_ues, num_antennas, num_paths, snapshots, num_angles, times, wrap, num_candidates;
    int32_t num_held_out, with_start, with_rss, with_aoa;
    float side_m, spread_rad, spacing_wavelengths, noise_over_power, intercept_db, slope_db;
    float nlos_loss_db, nlos_loss_spread_db, nlos_low_rad, nlos_high_rad, power_w, per_rss_db, per_aoa;
    // The first block of every kind of number, -1 where none is drawn.
    int64_t places, blocked, turns, sides, bearings, paths, below, squares, held_out;
};

// What a site is known by, see ``_Site``; P = num_candidates.
struct Site {
    const float *ap_positions_m, *ap_orientation_rad, *height_diff_m;            // [M, 2], [M], [M]
    const float *true_axis, *rss_bias_db, *bearing_noise_rad, *shadowing_maps;   // [M, 2], [M], [M], [M, G, G]
    const float *candidates_m, *candidate_rss_dbm, *candidate_spectra;           // [P, 2], [M, padded P], [M, L, padded P]
    float nlos_share, shadowing_std_db;
    int32_t map_size;  // G
};

struct Given {
    const int64_t *drop_keys, *fading_keys, *held_out_keys, *episodes;  // [B]
    const Site* sites;
    const int64_t* site_rows;   // [B]
    const float* positions_m;   // [B, T, K, 2] where they were drawn before, else null
    const float *waves, *spectra;  // [L, 2, L]: cos and sin of 2 pi d beam / L; [A, L]
};

struct Drawn {
    float *positions_m, *ap_positions_m, *ap_orientation_rad, *height_diff_m, *shadowing_std_db;
    float *covariance, *rss_dbm, *angular_power, *bearing_rad, *peak;
    uint8_t* fused;
    float* start_m;
};

struct Doubles {
    double re[LANES], im[LANES];
};

struct Floats {
    float re[LANES], im[LANES];
};

// sin of 2 pi y for |y| <= 1/4, double precision.
INLINE double sine_of_share(double y) {
    return sine_series(6.283185307179586 * y);
}

INLINE float nearest_image_of(float delta, float side) {
    return delta - side * std::nearbyint(delta * (1.0f / side));
}

// Temporaries of a thread.
class Desk {
public:
    explicit Desk(const Episode& e)
        : links(int64_t(e.num_aps) * e.num_ues * e.times),
          users(int64_t(e.num_aps) * e.num_ues),
          width(padded(e.num_candidates)),
          half(e.num_antennas * (e.num_antennas + 1) / 2),
          drawn(links * (e.num_paths + e.num_antennas * e.num_antennas) + LANES),
          degrees(links * e.num_antennas),
          per_link(7 * (links + LANES)),
          per_user(5 * (users + LANES)),
          scores(2 * int64_t(e.num_ues) * width),
          exponents(int64_t(e.num_ues) * width),
          shares(users * e.num_antennas),
          profile(size_t(e.num_angles) * LANES),
          beams(size_t(e.num_antennas) * LANES),
          lags(e.num_antennas),
          factor(half),
          diagonals(e.num_antennas),
          narrow(half),
          white(half),
          coloured(half),
          entries(half) {
        const int64_t per_antenna = links;
        for (int i = 0; i < e.num_antennas; ++i)
            std::fill_n(degrees.begin() + i * per_antenna, per_antenna, float(e.snapshots - i));
    }

    const int64_t links, users, width, half;
    std::vector<float> drawn, degrees, per_link, per_user, scores;
    std::vector<int32_t> exponents;
    std::vector<float> shares, profile, beams;
    std::vector<Doubles> lags, factor;
    std::vector<Floats> diagonals, narrow, white, coloured, entries;
};


// First column of the covariance over the fading: mean of exp(-j l 2 pi s cos(angle)) over the paths.
INLINE void lags_of(const Episode& e, const float* paths, int64_t links, const float* angle_rad, Desk& desk) {
    const int antennas = e.num_antennas;
    for (int l = 0; l < antennas; ++l) desk.lags[l] = Doubles{};
    const float scale = e.spread_rad / std::sqrt(2.0f);
    const double spacing = e.spacing_wavelengths, per_path = 1.0 / e.num_paths;
    for (int path = 0; path < e.num_paths; ++path) {
        const float* uniform = paths + path * links;
        float cosine[LANES];
        VECTORISED for (int i = 0; i < LANES; ++i) {
            const float shifted = uniform[i] - 0.5f;
            const float size = -log_of(most(1.0f - 2.0f * std::fabs(shifted), 1e-7f));
            cosine[i] = cos_of(angle_rad[i] + scale * (shifted == 0.0f ? 0.0f : with_sign(size, shifted)));
        }
        Doubles step, power;
        VECTORISED for (int i = 0; i < LANES; ++i) {
            // In whole turns, so that the fold is exact; the modulus stays one to double precision.
            double share = -spacing * double(cosine[i]);
            share -= std::nearbyint(share);
            const double size = std::fabs(share), rest = size > 0.25 ? 0.5 - size : size;
            step.re[i] = sine_of_share(0.25 - size);
            const double sine = sine_of_share(rest);
            step.im[i] = share < 0.0 ? -sine : sine;
            power.re[i] = per_path;
            power.im[i] = 0.0;
        }
        for (int l = 0; l < antennas; ++l) {
            Doubles& lag = desk.lags[l];
            VECTORISED for (int i = 0; i < LANES; ++i) {
                const double re = power.re[i], im = power.im[i];
                lag.re[i] += re;
                lag.im[i] += im;
                power.re[i] = re * step.re[i] - im * step.im[i];
                power.im[i] = re * step.im[i] + im * step.re[i];
            }
        }
    }
}

// Lower triangular C with C C^H = Toeplitz(lags) + noise I in double precision, kept in single: row i from i (i + 1) / 2.
INLINE void factorise_lags(int size, const float* noise, Desk& desk) {
    Doubles* factor = desk.factor.data();
    double inverse[LANES];
    for (int j = 0; j < size; ++j) {
        const Doubles* other = factor + j * (j + 1) / 2;
        for (int i = j; i < size; ++i) {
            Doubles rest = desk.lags[i - j];
            Doubles* row = factor + i * (i + 1) / 2;
            for (int k = 0; k < j; ++k)
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    rest.re[n] -= row[k].re[n] * other[k].re[n] + row[k].im[n] * other[k].im[n];
                    rest.im[n] -= row[k].im[n] * other[k].re[n] - row[k].re[n] * other[k].im[n];
                }
            Floats& narrow = desk.narrow[i * (i + 1) / 2 + j];
            if (i == j) {
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    const double left = rest.re[n] + double(noise[n]);
                    const double root = std::sqrt(left > 1e-300 ? left : 1e-300);
                    inverse[n] = 1.0 / root;
                    row[j].re[n] = root;
                    row[j].im[n] = 0.0;
                    narrow.re[n] = float(root);
                    narrow.im[n] = 0.0f;
                }
            } else {
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    row[j].re[n] = rest.re[n] * inverse[n];
                    row[j].im[n] = rest.im[n] * inverse[n];
                    narrow.re[n] = float(row[j].re[n]);
                    narrow.im[n] = float(row[j].im[n]);
                }
            }
        }
    }
}

// Lower half of R_hat = C A A^H C^H / T times the gain into ``entries``; A: Bartlett's triangular matrix.
INLINE void sample(const Episode& e, const float* below, const float* squares, int64_t links, const float* gain,
                   Desk& desk) {
    const int size = e.num_antennas;
    const int64_t plane = int64_t(size) * (size - 1) / 2 * links;
    const float root_half = std::sqrt(0.5f);
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j) {
            Floats& white = desk.white[i * (i + 1) / 2 + j];
            const float *re = i == j ? squares + i * links : below + (i * (i - 1) / 2 + j) * links, *im = re + plane;
            if (i == j)
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    white.re[n] = std::sqrt(re[n]);
                    white.im[n] = 0.0f;
                }
            else
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    white.re[n] = re[n] * root_half;
                    white.im[n] = im[n] * root_half;
                }
        }
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j) {
            Floats total{};
            for (int k = j; k <= i; ++k) {
                const Floats &c = desk.narrow[i * (i + 1) / 2 + k], &a = desk.white[k * (k + 1) / 2 + j];
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    total.re[n] += c.re[n] * a.re[n] - c.im[n] * a.im[n];
                    total.im[n] += c.re[n] * a.im[n] + c.im[n] * a.re[n];
                }
            }
            desk.coloured[i * (i + 1) / 2 + j] = total;
        }
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j) {
            Floats total{};
            const Floats *a = desk.coloured.data() + i * (i + 1) / 2, *b = desk.coloured.data() + j * (j + 1) / 2;
            for (int k = 0; k <= j; ++k)
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    total.re[n] += a[k].re[n] * b[k].re[n] + a[k].im[n] * b[k].im[n];
                    total.im[n] += a[k].im[n] * b[k].re[n] - a[k].re[n] * b[k].im[n];
                }
            Floats& entry = desk.entries[i * (i + 1) / 2 + j];
            VECTORISED for (int n = 0; n < LANES; ++n) {
                const float share = gain[n] / float(e.snapshots);
                entry.re[n] = total.re[n] * share;
                entry.im[n] = i == j ? 0.0f : total.im[n] * share;
            }
        }
}

// Beams, bearing and peak of the covariances in ``entries``; see ``hear`` of channel.cpp.
INLINE void listen(const Episode& e, const Given& given, Desk& desk, float (&bearing)[LANES], float (&peak)[LANES]) {
    const int size = e.num_antennas, last = e.num_angles - 1;
    float *power = desk.beams.data(), *profile = desk.profile.data();
    for (int d = 0; d < size; ++d) {
        Floats total{};
        for (int j = 0; j + d < size; ++j) {
            const Floats& entry = desk.entries[(j + d) * (j + d + 1) / 2 + j];
            VECTORISED for (int n = 0; n < LANES; ++n) {
                // Row j, column j + d is the conjugate of the lower half's entry.
                total.re[n] += entry.re[n];
                total.im[n] -= entry.im[n];
            }
        }
        desk.diagonals[d] = total;
    }
    float square_sum[LANES] = {}, inverse[LANES];
    for (int beam = 0; beam < size; ++beam) {
        float* row = power + beam * LANES;
        VECTORISED for (int n = 0; n < LANES; ++n) row[n] = desk.diagonals[0].re[n];
        for (int d = 1; d < size; ++d) {
            const float cosine = 2.0f * given.waves[2 * d * size + beam];
            const float sine = 2.0f * given.waves[(2 * d + 1) * size + beam];
            const Floats& diagonal = desk.diagonals[d];
            VECTORISED for (int n = 0; n < LANES; ++n) row[n] += diagonal.re[n] * cosine - diagonal.im[n] * sine;
        }
        VECTORISED for (int n = 0; n < LANES; ++n) square_sum[n] += row[n] * row[n];
    }
    VECTORISED for (int n = 0; n < LANES; ++n) inverse[n] = 1.0f / most(std::sqrt(square_sum[n]), 1e-12f);
    float best[LANES];
    int32_t place[LANES];
    VECTORISED for (int n = 0; n < LANES; ++n) {
        best[n] = -1.0f;
        place[n] = 0;
    }
    for (int angle = 0; angle <= last; ++angle) {
        const float* spectrum = given.spectra + angle * size;
        float value[LANES] = {};
        for (int beam = 0; beam < size; ++beam) {
            const float* row = power + beam * LANES;
            const float weight = spectrum[beam];
            VECTORISED for (int n = 0; n < LANES; ++n) value[n] += row[n] * weight;
        }
        VECTORISED for (int n = 0; n < LANES; ++n) {
            const float cosine = value[n] * inverse[n];
            profile[angle * LANES + n] = cosine;
            place[n] = cosine > best[n] ? angle : place[n];
            best[n] = most(best[n], cosine);
        }
    }
    for (int n = 0; n < LANES; ++n) {
        const int inner = std::min(std::max(place[n], 1), last - 1);
        const float *centre = profile + inner * LANES + n, left = centre[-LANES], right = centre[LANES];
        const float curvature = left - 2.0f * *centre + right;
        float at = float(place[n]);
        if (curvature < 0.0f)
            at = float(inner) + clamped(0.5f * (left - right) / least(curvature, -1e-12f), -1.0f, 1.0f);
        bearing[n] = clamped(at * (PI / float(last)), 0.0f, PI);
        peak[n] = best[n];
    }
}

// Bilinear value of a map; see ``sample_maps``.
INLINE float map_value(const float* map, int size, bool wrap, float side, float x, float y) {
    const int cells = wrap ? size : size - 1;
    const float per_cell = side / float(cells);
    float at[2] = {x / per_cell, y / per_cell}, share[2];
    int low[2], high[2];
    for (int axis = 0; axis < 2; ++axis) {
        if (wrap) at[axis] -= float(cells) * std::floor(at[axis] / float(cells));
        at[axis] = clamped(at[axis], 0.0f, float(cells));
        const float whole = least(std::floor(at[axis]), float(cells - 1));
        share[axis] = at[axis] - whole;
        low[axis] = int(whole);
        high[axis] = wrap ? (low[axis] + 1) % size : low[axis] + 1;
    }
    const float *near = map + int64_t(low[0]) * size, *far = map + int64_t(high[0]) * size;
    const float first = near[low[1]] * (1.0f - share[1]) + near[high[1]] * share[1];
    const float second = far[low[1]] * (1.0f - share[1]) + far[high[1]] * share[1];
    return first * (1.0f - share[0]) + second * share[0];
}

// Links, their covariances and what is heard of them, of one episode.
void measure(const Episode& e, const Given& given, const Drawn& out, int64_t episode, Desk& desk) {
    const int aps = e.num_aps, users = e.num_ues, size = e.num_antennas, times = e.times, points = times * users;
    const int64_t links = desk.links, per_round = desk.users, square = int64_t(size) * size;
    const Site& site = given.sites[given.site_rows[episode]];
    const uint64_t number = uint64_t(given.episodes[episode]);
    const Stream drop{uint64_t(given.drop_keys[episode]), number}, fading{uint64_t(given.fading_keys[episode]), number};
    float* positions = out.positions_m + episode * 2 * points;
    if (given.positions_m) {
        std::copy_n(given.positions_m + episode * 2 * points, 2 * points, positions);
    } else {
        fill_uniform(drop, uint64_t(e.places), 2 * users, positions);
        for (int i = 0; i < 2 * users; ++i) positions[i] *= e.side_m;
    }
    float *blocked = desk.per_user.data(), *turn = blocked + per_round, *side = turn + per_round, *noise = side + per_round;
    fill_uniform(drop, uint64_t(e.blocked), per_round, blocked);
    fill_uniform(drop, uint64_t(e.turns), per_round, turn);
    fill_uniform(drop, uint64_t(e.sides), per_round, side);
    fill_normal(drop, uint64_t(e.bearings), per_round, noise);
    float *paths = desk.drawn.data(), *below = paths + links * e.num_paths, *squares = below + links * (square - size);
    fill_uniform(fading, uint64_t(e.paths), links * e.num_paths, paths);
    fill_normal(fading, uint64_t(e.below), links * (square - size), below);
    fill_gamma(fading, uint64_t(e.squares), links * size, desk.degrees.data(), squares);

    float *x = desk.per_link.data(), *y = x + links, *across = y + links, *along = across + links;
    float *slant = along + links, *angle = slant + links, *gain_db = angle + links;
    for (int m = 0, link = 0; m < aps; ++m) {
        const float *ap = site.ap_positions_m + 2 * m, *axis = site.true_axis + 2 * m;
        const float height = site.height_diff_m[m] * site.height_diff_m[m];
        for (int p = 0; p < points; ++p, ++link) {
            float dx = positions[2 * p] - ap[0], dy = positions[2 * p + 1] - ap[1];
            if (e.wrap) dx = nearest_image_of(dx, e.side_m), dy = nearest_image_of(dy, e.side_m);
            slant[link] = most(dx * dx + dy * dy + height, 0.01f);
            along[link] = dx * axis[0] + dy * axis[1];
            across[link] = dy * axis[0] - dx * axis[1];
        }
    }
    VECTORISED for (int64_t link = 0; link < links; ++link) {
        angle[link] = with_sign(folded_angle(std::fabs(across[link]), along[link]), across[link]);
        gain_db[link] = e.intercept_db - e.slope_db * (0.5f / LN_10) * log_of(slant[link]);
    }
    for (int m = 0, link = 0; m < aps; ++m)
        for (int p = 0; p < points; ++p, ++link) {
            const int of_user = m * users + p % users;
            const float is_blocked = blocked[of_user] < site.nlos_share ? 1.0f : 0.0f;
            const float detour = is_blocked * (e.nlos_low_rad + (e.nlos_high_rad - e.nlos_low_rad) * turn[of_user]);
            angle[link] += (side[of_user] < 0.5f ? -detour : detour) + noise[of_user] * site.bearing_noise_rad[m];
            const float* map = site.shadowing_maps + int64_t(m) * site.map_size * site.map_size;
            if (site.shadowing_std_db > 0.0f)
                gain_db[link] += map_value(map, site.map_size, e.wrap, e.side_m, positions[2 * p], positions[2 * p + 1]);
            // Where it is below the share, a uniform number over that share is uniform again.
            const float further = blocked[of_user] / most(site.nlos_share, 1e-6f);
            gain_db[link] -= (e.nlos_loss_db + e.nlos_loss_spread_db * further) * is_blocked;
        }

    for (int64_t first = 0; first < links; first += LANES) {
        const int there = int(std::min<int64_t>(LANES, links - first));
        float gain[LANES], floor[LANES], mean[LANES], power[LANES] = {}, bearing[LANES], peak[LANES];
        for (int n = 0; n < LANES; ++n) {
            const int64_t link = first + std::min(n, there - 1);
            mean[n] = angle[link];
            gain[n] = exp_of(gain_db[link] * (LN_10 / 10.0f));
            floor[n] = e.noise_over_power / gain[n];
        }
        // What is behind the last link is of others or nothing: it is computed, and dropped.
        lags_of(e, paths + first, links, mean, desk);
        factorise_lags(size, floor, desk);
        sample(e, below + first, squares + first, links, gain, desk);
        for (int i = 0; i < size; ++i) {
            const Floats& entry = desk.entries[i * (i + 1) / 2 + i];
            VECTORISED for (int n = 0; n < LANES; ++n) power[n] += entry.re[n];
        }
        const bool is_heard = first < per_round || times > 1;
        if (is_heard) listen(e, given, desk, bearing, peak);
        for (int n = 0; n < there; ++n) {
            const int64_t link = first + n;
            const int m = int(link / points), p = int(link % points);
            const int64_t round_link = int64_t(m) * users + p % users;
            const int64_t row = (episode * times + p / users) * per_round + round_link;
            float* matrix = out.covariance + 2 * row * square;
            for (int i = 0; i < size; ++i)
                for (int j = 0; j <= i; ++j) {
                    const Floats& entry = desk.entries[i * (i + 1) / 2 + j];
                    const float re = entry.re[n], im = entry.im[n];
                    const float lower[2] = {re, im}, upper[2] = {re, -im};
                    std::memcpy(matrix + 2 * (j * size + i), upper, sizeof upper);
                    std::memcpy(matrix + 2 * (i * size + j), lower, sizeof lower);
                }
            out.rss_dbm[row] = 10.0f / LN_10 * log_of(e.power_w * power[n]) + 30.0f + site.rss_bias_db[m];
            if (p >= users) continue;
            const int64_t heard = episode * per_round + round_link;
            float norm = 0.0f;
            for (int beam = 0; beam < size; ++beam) {
                const float value = desk.beams[beam * LANES + n];
                out.angular_power[heard * size + beam] = value;
                norm += value * value;
            }
            norm = 1.0f / most(std::sqrt(norm), 1e-12f);
            for (int beam = 0; beam < size; ++beam)
                desk.shares[round_link * size + beam] = desk.beams[beam * LANES + n] * norm;
            out.bearing_rad[heard] = bearing[n];
            out.peak[heard] = peak[n];
        }
    }
}

// Which links take part: of every user the access points but those with the smallest numbers; see ``draw_fused``.
void hold_out(const Episode& e, const Given& given, uint8_t* fused, int64_t episode, Desk& desk) {
    const int aps = e.num_aps, users = e.num_ues;
    const Stream stream{uint64_t(given.held_out_keys[episode]), uint64_t(given.episodes[episode])};
    if (e.num_held_out == 0) {
        std::fill_n(fused, desk.users, uint8_t(1));
        return;
    }
    float* order = desk.per_user.data();
    fill_uniform(stream, uint64_t(e.held_out), desk.users, order);
    for (int m = 0; m < aps; ++m)
        for (int k = 0; k < users; ++k) {
            int rank = 0;
            const float own = order[m * users + k];
            for (int other = 0; other < aps; ++other) {
                const float value = order[other * users + k];
                rank += value < own || (value == own && other < m);
            }
            fused[m * users + k] = rank >= e.num_held_out;
        }
}

// The best candidate of every user; see ``coarse_joint_scores``.
void find_start(const Episode& e, const Given& given, const Drawn& out, int64_t episode, Desk& desk) {
    const int aps = e.num_aps, users = e.num_ues, size = e.num_antennas, width = int(desk.width);
    const Site& site = given.sites[given.site_rows[episode]];
    const uint8_t* fused = out.fused + episode * desk.users;
    const float* rss = out.rss_dbm + episode * e.times * desk.users;
    float *products = desk.scores.data(), *sums = products + int64_t(users) * width;
    int32_t* exponents = desk.exponents.data();
    std::fill_n(products, int64_t(users) * width, 1.0f);
    std::fill_n(sums, int64_t(users) * width, 0.0f);
    std::fill_n(exponents, int64_t(users) * width, 0);
    for (int m = 0; m < aps; ++m) {
        const float* predicted = site.candidate_rss_dbm + int64_t(m) * width;
        const float* spectra = site.candidate_spectra + int64_t(m) * size * width;
        for (int k = 0; k < users; ++k) {
            if (!fused[m * users + k]) continue;
            const float measured = rss[m * users + k], *share = desk.shares.data() + (int64_t(m) * users + k) * size;
            float* product = products + int64_t(k) * width;
            int32_t* exponent = exponents + int64_t(k) * width;
            const float per_db = e.with_rss ? e.per_rss_db : 0.0f, per_aoa = e.per_aoa;
            for (int start = 0; start < width; start += LANES) {
                float factor[LANES];
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    const float off = (measured - predicted[start + n]) * per_db;
                    factor[n] = 1.0f + off * off;
                }
                if (e.with_aoa) {
                    float cosine[LANES] = {};
                    for (int beam = 0; beam < size; ++beam) {
                        const float weight = share[beam], *row = spectra + int64_t(beam) * width + start;
                        VECTORISED for (int n = 0; n < LANES; ++n) cosine[n] += weight * row[n];
                    }
                    VECTORISED for (int n = 0; n < LANES; ++n)
                        factor[n] *= 1.0f + most(1.0f - cosine[n], 0.0f) * per_aoa;
                }
                // One logarithm for all factors: mantissas are multiplied, exponents added.
                VECTORISED for (int n = 0; n < LANES; ++n) {
                    const int32_t bits = bits_of(factor[n]);
                    exponent[start + n] += (bits >> 23) - 127;
                    product[start + n] *= float_of((bits & 0x007fffff) | 0x3f800000);
                }
            }
        }
        if (m % 64 == 63 || m == aps - 1)
            VECTORISED for (int64_t n = 0; n < int64_t(users) * width; ++n) {
                sums[n] += log_of(products[n]);
                products[n] = 1.0f;
            }
    }
    for (int k = 0; k < users; ++k) {
        float* score = sums + int64_t(k) * width;
        const int32_t* exponent = exponents + int64_t(k) * width;
        VECTORISED for (int n = 0; n < width; ++n) score[n] += float(exponent[n]) * 0.69314718056f;
        const int64_t best = std::min_element(score, score + e.num_candidates) - score;
        std::copy_n(site.candidates_m + 2 * best, 2, out.start_m + (episode * users + k) * 2);
    }
}

}  // namespace cfpos

extern "C" {

void cfpos_dcp_begin(const cfpos::Episode* e, const cfpos::Given* given, const cfpos::Drawn* out, int64_t episodes,
                     int threads) {
    using namespace cfpos;
    for_parts(episodes, threads, 2, [&](int64_t first, int64_t last) {
        Desk desk(*e);
        const int64_t links = desk.users;
        // One site after another: its tables then stay in the cache.
        std::vector<int64_t> order(last - first);
        std::iota(order.begin(), order.end(), first);
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return given->site_rows[a] < given->site_rows[b]; });
        for (const int64_t episode : order) {
            const Site& site = given->sites[given->site_rows[episode]];
            std::copy_n(site.ap_positions_m, 2 * e->num_aps, out->ap_positions_m + episode * 2 * e->num_aps);
            std::copy_n(site.ap_orientation_rad, e->num_aps, out->ap_orientation_rad + episode * e->num_aps);
            std::copy_n(site.height_diff_m, e->num_aps, out->height_diff_m + episode * e->num_aps);
            out->shadowing_std_db[episode] = site.shadowing_std_db;
            measure(*e, *given, *out, episode, desk);
            hold_out(*e, *given, out->fused + episode * links, episode, desk);
            if (e->with_start) find_start(*e, *given, *out, episode, desk);
        }
    });
}

}  // extern "C"
