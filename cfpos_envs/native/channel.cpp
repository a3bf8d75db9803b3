// What an access point measures of a user, one vector of links at a time: sample covariances, spectra, bearings.
// The formulas of cfpos_envs/physics/dcp/channel.py and arrays.py, and the coarse start of physics/innovations.py.

#include "lanes.hpp"
#include "peaks.hpp"

namespace cfpos {

constexpr double TAU = 6.283185307179586;

// Constants of the channel; the fields are those of ``_Channel`` in physics/compiled.py, in its order.
struct Channel {
    int32_t num_paths, num_antennas, snapshots;
    float spread_rad, spacing_wavelengths, noise_over_power;  // sigma^2 / (p tau_p), the noise of the LS estimate
};

struct ComplexLanes {
    double re[LANES], im[LANES];
};

struct ComplexLanes32 {
    float re[LANES], im[LANES];
};

// sin x in double precision, x = n pi + r.
INLINE double precise_sin(double x) {
    const double n = std::nearbyint(x * (2.0 / TAU));
    const double r = (x - n * 3.141592653589793) - n * 1.2246467991473532e-16;
    const double sine = sine_series(r);
    return (int64_t(n) & 1) ? -sine : sine;
}

// First column of the covariance of eq. (1) over the fading, (1/N) sum_n e^(j l x_n), into lags[L]; see
// ``channel_covariance``. Path angles are Laplacian around the mean, see ``path_angles``.
void find_lags(const Channel& channel, const float* uniform, const float* angle_rad, int count, ComplexLanes* lags) {
    const float scale = channel.spread_rad / std::sqrt(2.0f);
    const int paths = channel.num_paths, antennas = channel.num_antennas;
    for (int l = 0; l < antennas; ++l) lags[l] = ComplexLanes{};
    for (int path = 0; path < paths; ++path) {
        float drawn[LANES], mean[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const int link = std::min(lane, count - 1);
            drawn[lane] = uniform[int64_t(link) * paths + path] - 0.5f;
            mean[lane] = angle_rad[link];
        }
        ComplexLanes step, power;
        VECTORISED for (int lane = 0; lane < LANES; ++lane) {
            const float size = -log_of(most(1.0f - 2.0f * std::fabs(drawn[lane]), 1e-7f));
            const double angle = mean[lane] + scale * (drawn[lane] == 0.0f ? 0.0f : with_sign(size, drawn[lane]));
            const double phase = -TAU * channel.spacing_wavelengths * precise_sin(angle + TAU / 4.0);
            step.re[lane] = precise_sin(phase + TAU / 4.0);
            step.im[lane] = precise_sin(phase);
            power.re[lane] = 1.0;
            power.im[lane] = 0.0;
        }
        for (int l = 0; l < antennas; ++l)
            VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                const double re = power.re[lane], im = power.im[lane];
                lags[l].re[lane] += re / paths;
                lags[l].im[lane] += im / paths;
                power.re[lane] = re * step.re[lane] - im * step.im[lane];
                power.im[lane] = re * step.im[lane] + im * step.re[lane];
            }
    }
}

// Lower triangular C with C C^H = Toeplitz(lags) + noise I, row by row into factor[i (i + 1) / 2 + j].
void factorise(int size, const ComplexLanes* lags, const float* noise, ComplexLanes* factor) {
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j) {
            ComplexLanes rest = lags[i - j];
            const ComplexLanes *row = factor + i * (i + 1) / 2, *other = factor + j * (j + 1) / 2;
            for (int k = 0; k < j; ++k)
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    rest.re[lane] -= row[k].re[lane] * other[k].re[lane] + row[k].im[lane] * other[k].im[lane];
                    rest.im[lane] -= row[k].im[lane] * other[k].re[lane] - row[k].re[lane] * other[k].im[lane];
                }
            ComplexLanes& out = factor[i * (i + 1) / 2 + j];
            if (i == j) {
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    const double left = rest.re[lane] + double(noise[lane]);
                    out.re[lane] = std::sqrt(left > 1e-300 ? left : 1e-300);
                    out.im[lane] = 0.0;
                }
            } else {
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    out.re[lane] = rest.re[lane] / other[j].re[lane];
                    out.im[lane] = rest.im[lane] / other[j].re[lane];
                }
            }
        }
}

// C A with Bartlett's lower triangular A: squares of its diagonal in gamma [n, L], the rest in below [n, L (L-1)/2].
void colour(int size, const ComplexLanes* factor, const float* gamma, const float* below, int count,
            ComplexLanes32* white, ComplexLanes32* coloured) {
    const int num_below = size * (size - 1) / 2;
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j)
            for (int lane = 0; lane < LANES; ++lane) {
                const int64_t link = std::min(lane, count - 1);
                const float* entry = below + 2 * (link * num_below + i * (i - 1) / 2 + j);
                white[i * (i + 1) / 2 + j].re[lane] = i == j ? std::sqrt(gamma[link * size + i]) : entry[0];
                white[i * (i + 1) / 2 + j].im[lane] = i == j ? 0.0f : entry[1];
            }
    for (int i = 0; i < size; ++i)
        for (int j = 0; j <= i; ++j) {
            ComplexLanes32 total{};
            for (int k = j; k <= i; ++k) {
                const ComplexLanes& c = factor[i * (i + 1) / 2 + k];
                const ComplexLanes32& a = white[k * (k + 1) / 2 + j];
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    const float re = float(c.re[lane]), im = float(c.im[lane]);
                    total.re[lane] += re * a.re[lane] - im * a.im[lane];
                    total.im[lane] += re * a.im[lane] + im * a.re[lane];
                }
            }
            coloured[i * (i + 1) / 2 + j] = total;
        }
}

void sample_covariances(const Channel& channel, const float* uniform, const float* angle_rad, const float* gain_db,
                        const float* gamma, const float* below, float* covariance, float* trace, int64_t first,
                        int64_t last) {
    const int size = channel.num_antennas, half = size * (size + 1) / 2, num_below = size * (size - 1) / 2;
    std::vector<ComplexLanes> lags(size), factor(half);
    std::vector<ComplexLanes32> white(half), coloured(half);
    for (int64_t start = first; start < last; start += LANES) {
        const int count = int(std::min<int64_t>(LANES, last - start));
        float gain[LANES], noise[LANES], power[LANES] = {};
        for (int lane = 0; lane < LANES; ++lane) {
            gain[lane] = exp_of(gain_db[start + std::min(lane, count - 1)] * (LN_10 / 10.0f));
            noise[lane] = channel.noise_over_power / gain[lane];
        }
        find_lags(channel, uniform + start * channel.num_paths, angle_rad + start, count, lags.data());
        factorise(size, lags.data(), noise, factor.data());
        colour(size, factor.data(), gamma + start * size, below + 2 * start * num_below, count, white.data(),
               coloured.data());
        // R_hat = C A A^H C^H / T, of which the upper half is the conjugate of the lower one.
        for (int i = 0; i < size; ++i)
            for (int j = 0; j <= i; ++j) {
                ComplexLanes32 total{};
                const ComplexLanes32 *a = coloured.data() + i * (i + 1) / 2, *b = coloured.data() + j * (j + 1) / 2;
                for (int k = 0; k <= j; ++k)
                    VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                        total.re[lane] += a[k].re[lane] * b[k].re[lane] + a[k].im[lane] * b[k].im[lane];
                        total.im[lane] += a[k].im[lane] * b[k].re[lane] - a[k].re[lane] * b[k].im[lane];
                    }
                VECTORISED for (int lane = 0; lane < LANES; ++lane) {
                    const float share = gain[lane] / float(channel.snapshots);
                    total.re[lane] *= share;
                    total.im[lane] *= i == j ? 0.0f : share;
                    power[lane] += i == j ? total.re[lane] : 0.0f;
                }
                for (int lane = 0; lane < count; ++lane) {
                    float* matrix = covariance + 2 * (start + lane) * size * size;
                    float *lower = matrix + 2 * (i * size + j), *upper = matrix + 2 * (j * size + i);
                    upper[0] = total.re[lane];
                    upper[1] = -total.im[lane];
                    lower[0] = total.re[lane];
                    lower[1] = total.im[lane];
                }
            }
        std::copy(power, power + count, trace + start);
    }
}

// Spectra and bearings ------------------------------------------------------------------------------------------------

// Cosine similarity of a spectrum with that of every direction.
void find_profile(int size, int width, const float* power, const float* spectra_by_beam, float* profile) {
    float square_sum = 0.0f;
    for (int beam = 0; beam < size; ++beam) square_sum += power[beam] * power[beam];
    const float per_length = 1.0f / most(std::sqrt(square_sum), 1e-12f);
    std::fill(profile, profile + width, 0.0f);
    for (int beam = 0; beam < size; ++beam) {
        const float share = power[beam] * per_length, *row = spectra_by_beam + beam * width;
        VECTORISED for (int i = 0; i < width; ++i) profile[i] += share * row[i];
    }
}

// Mean power of the DFT beams, the cosine similarity with every direction's spectrum, and its refined maximum; see
// ``angular_power``, ``angle_profile``, ``profile_peak``.
// ``waves`` [L, 2, padded(L)]: cos and sin of 2 pi d beam / L; ``spectra_by_beam`` [L, padded(A)]: unit spectra of all directions.
void hear(int size, int num_angles, const float* waves, const float* spectra_by_beam, const float* covariance,
          float* angular_power, float* bearing_rad, float* peak, int64_t first, int64_t last) {
    const int width = padded(num_angles);
    const int beams = padded(size);
    std::vector<float> diagonals(2 * size);
    Rows rows(2, std::max(beams, width));
    float *power = rows.take(), *profile = rows.take();
    for (int64_t link = first; link < last; ++link) {
        const float* matrix = covariance + 2 * link * size * size;
        // Sums along the diagonals, of which the beams are a Fourier transform.
        std::fill(diagonals.begin(), diagonals.end(), 0.0f);
        for (int j = 0; j < size; ++j)
            for (int n = 0; n < 2 * (size - j); ++n) diagonals[n] += matrix[2 * (j * size + j) + n];
        // Row j, column j + d holds the conjugate of lag d: power = D_0 + 2 Re sum_d D_d e^(j 2 pi beam d / L).
        std::fill(power, power + beams, diagonals[0]);
        for (int d = 1; d < size; ++d) {
            const float re = 2.0f * diagonals[2 * d], im = 2.0f * diagonals[2 * d + 1];
            const float *cosine = waves + 2 * d * beams, *sine = cosine + beams;
            VECTORISED for (int beam = 0; beam < beams; ++beam) power[beam] += re * cosine[beam] - im * sine[beam];
        }
        std::copy(power, power + size, angular_power + link * size);
        find_profile(size, width, power, spectra_by_beam, profile);
        const Peak found = refined_peak(profile, num_angles);
        bearing_rad[link] = found.angle_rad;
        peak[link] = found.value;
    }
}

// The first estimate: the best of P candidate points of the site, see ``coarse_joint_scores``.
struct Coarse {
    int32_t num_aps, num_ues, num_antennas, num_angles, num_candidates;
    float rss_scale_db;  // 0: RSS is left out
    float aoa_scale;     // 0: bearings are left out
};

void find_starts(const Coarse& coarse, const float* spectra_by_beam, const float* rss_dbm, const float* angular_power,
                 const uint8_t* fused, const int64_t* sites, const float* candidate_rss_dbm,
                 const float* candidate_angle_rad, int64_t* best, int64_t first, int64_t last) {
    const int aps = coarse.num_aps, users = coarse.num_ues, points = coarse.num_candidates;
    const int width = padded(coarse.num_angles), row_size = padded(points);
    const bool with_rss = coarse.rss_scale_db > 0.0f, with_aoa = coarse.aoa_scale > 0.0f;
    const float per_db = with_rss ? 1.0f / coarse.rss_scale_db : 0.0f;
    const float per_aoa = with_aoa ? 1.0f / coarse.aoa_scale : 0.0f;
    const float per_rad = float(coarse.num_angles - 1) / PI;
    Rows rows(4, std::max(row_size, width));
    float *predicted = rows.take(), *misfit = rows.take(), *profile = rows.take(), *scores = rows.take();
    std::vector<int32_t> places(row_size);
    for (int64_t episode = first; episode < last; ++episode)
        for (int user = 0; user < users; ++user) {
            std::fill(scores, scores + row_size, 0.0f);
            for (int m = 0; m < aps; ++m) {
                const int64_t link = (episode * aps + m) * users + user;
                if (!fused[link]) continue;
                const int64_t row = (sites[episode] * aps + m) * points;
                std::copy_n(candidate_rss_dbm + row, points, predicted);
                if (with_aoa) {
                    find_profile(coarse.num_antennas, width, angular_power + link * coarse.num_antennas,
                                 spectra_by_beam, profile);
                    std::copy_n(candidate_angle_rad + row, points, misfit);
                    // An angle that is none, NaN, is read at the first place.
                    VECTORISED for (int i = 0; i < row_size; ++i)
                        places[i] = int32_t(
                            std::nearbyint(clamped(std::fabs(misfit[i]) * per_rad, 0.0f, float(coarse.num_angles - 1))));
                    for (int i = 0; i < points; ++i) misfit[i] = profile[one_by_one(places[i])];
                }
                const float measured = rss_dbm[link];
                VECTORISED for (int i = 0; i < row_size; ++i) {
                    // -log(1 + (dB difference / scale)^2) - log(1 + (1 - Xi^a) / 0.03), the two logarithms as one.
                    const float of_rss = 1.0f + square((measured - predicted[i]) * per_db);
                    const float of_aoa = with_aoa ? 1.0f + most(1.0f - misfit[i], 0.0f) * per_aoa : 1.0f;
                    scores[i] -= log_of(of_rss * of_aoa);
                }
            }
            best[episode * users + user] = first_largest(scores, points);
        }
}

}  // namespace cfpos

extern "C" {

void cfpos_find_starts(const cfpos::Coarse* coarse, const float* spectra_by_beam, const float* rss_dbm,
                       const float* angular_power, const uint8_t* fused, const int64_t* sites,
                       const float* candidate_rss_dbm, const float* candidate_angle_rad, int64_t* best,
                       int64_t episodes, int threads) {
    cfpos::for_parts(episodes, threads, 2, [&](int64_t first, int64_t last) {
        cfpos::find_starts(*coarse, spectra_by_beam, rss_dbm, angular_power, fused, sites, candidate_rss_dbm,
                           candidate_angle_rad, best, first, last);
    });
}

void cfpos_sample_covariances(const cfpos::Channel* channel, const float* uniform, const float* angle_rad,
                              const float* gain_db, const float* gamma, const float* below, float* covariance,
                              float* trace, int64_t links, int threads) {
    cfpos::for_parts(links, threads, 256, [&](int64_t first, int64_t last) {
        cfpos::sample_covariances(*channel, uniform, angle_rad, gain_db, gamma, below, covariance, trace, first, last);
    });
}

void cfpos_hear(int num_antennas, int num_angles, const float* waves, const float* spectra_by_beam,
                const float* covariance, float* angular_power, float* bearing_rad, float* peak, int64_t links,
                int threads) {
    cfpos::for_parts(links, threads, 256, [&](int64_t first, int64_t last) {
        cfpos::hear(num_antennas, num_angles, waves, spectra_by_beam, covariance, angular_power, bearing_rad, peak,
                    first, last);
    });
}

}  // extern "C"
