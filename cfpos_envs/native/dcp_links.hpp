// What one access point measures and what a hypothesised point predicts: links, innovations, scales of residuals.
// The same formulas as cfpos_envs/physics/{links,innovations,similarity}.py and scenarios/dcp/state.py.
#pragma once

#include <limits>

#include "lanes.hpp"

namespace cfpos {

enum Action { GAIN, CONFIDENCE, CONFIDENCE_CORRECTION };
enum Fusion { MEAN, LINE_SEARCH, INFORMATION };
enum Reward { LOCAL, SHARED, CREDIT };
enum Similarity { LOG, ROBUST, CAUCHY };

// Options and constants of a game; the fields are those of ``_Game`` in scenarios/dcp/kernel.py, in its order.
struct Game {
    int32_t num_aps, num_ues, num_antennas, num_angles, num_features;
    int32_t uses_rss, uses_aoa, wrap, holds_out;
    int32_t action, action_size, fusion, reward, similarity;
    int32_t rounds, stage_one_rounds;  // stage_one_rounds = 0: the game is not chained
    int32_t quartile;                  // index of the lower quartile of the users
    int32_t has_short_law;
    float law[4];                      // what the noise adds to the RSS as a polynomial in the squared distance, dB
    float side_m, at_one_metre_dbm, noise_dbm, slope_db;
    float confidence_scale, correction_db, correction_rad, max_step_m, ridge;
};

// Constants of a game that are too many for ``Game``.
struct Tables {
    const float* inverse_scales;   // [F] of the observation's features
    const float* spectra;          // [A, L] normalised spectrum of every direction from 0 to pi
    const float* spectra_by_beam;  // [L, padded(A)] the same, transposed
};

// State of B episodes, see DcpState; every tensor is contiguous.
struct State {
    const float* ap_positions_m;      // [B, M, 2]
    const float* ap_orientation_rad;  // [B, M]
    const float* height_diff_m;       // [B, M]
    const float* rss_dbm;             // [B, M, K]
    const float* bearing_rad;         // [B, M, K]
    const float* peak;                // [B, M, K]
    const float* angular_power;       // [B, M, K, L]
    const float* implied_m;           // [B, M, K] distance that the RSS implies; read for gain actions alone
    const uint8_t* fused;             // [B, M, K]
    const float* consensus_m;         // [B, K, 2]
    const float* spread_m;            // [B, K]
    const int64_t* round;             // [B]
    // [B, M, K] what the front end says of its readings; null: the nominal scale of bearings, and powers without noise.
    const float *bearing_std_rad, *power_std_db;
};

INLINE float nearest_image(const Game& game, float delta_m) {
    return game.wrap ? delta_m - game.side_m * std::nearbyint(delta_m * (1.0f / game.side_m)) : delta_m;
}

INLINE float into_area(const Game& game, float coordinate_m) {
    if (!game.wrap) return clamped(coordinate_m, 0.0f, game.side_m);
    const float rest = coordinate_m - game.side_m * std::floor(coordinate_m * (1.0f / game.side_m));
    // Where the quotient is rounded up to the next whole number.
    return rest < 0.0f ? rest + game.side_m : rest;
}

// Signal part of the RSS, dBm, at a squared slant distance.
INLINE float signal_dbm(const Game& game, float slant_square_m2) {
    return game.at_one_metre_dbm - 0.5f * game.slope_db / LN_10 * log_of(slant_square_m2);
}

// Expected RSS, eq. (4) plus the noise of the estimate, dBm.
INLINE float predicted_dbm(const Game& game, float slant_square_m2) {
    const float signal = signal_dbm(game, slant_square_m2);
    const float noise_over_signal = exp_of((game.noise_dbm - signal) * (LN_10 / 10.0f));
    return signal + 10.0f / LN_10 * log_of(1.0f + noise_over_signal);
}

// Where an angle in [0, pi] lies between two entries of a table of directions.
struct Place {
    int32_t low;
    float rest;
};

INLINE Place place_of(const Game& game, float angle_rad) {
    const float last = float(game.num_angles - 1);
    const float place = clamped(angle_rad * (last / PI), 0.0f, last);
    const int32_t low = std::min(int32_t(place), game.num_angles - 2);
    return {low, place - float(low)};
}

// Cosine similarities at one vector of angles in [0, pi], which they replace, by linear interpolation of angle
// profiles: one term of Xi^a, eq. (8). ``rows``: where each one's profile begins.
INLINE void read_profiles(const Game& game, const float* profiles, const int32_t (&rows)[LANES], float* angles_rad) {
    int32_t places[LANES];
    float rest[LANES], left[LANES], right[LANES];
    VECTORISED for (int lane = 0; lane < LANES; ++lane) {
        const Place place = place_of(game, angles_rad[lane]);
        places[lane] = rows[lane] + place.low;
        rest[lane] = place.rest;
    }
    for (int lane = 0; lane < LANES; ++lane) {
        const int32_t place = one_by_one(places[lane]);
        left[lane] = profiles[place];
        right[lane] = profiles[place + 1];
    }
    VECTORISED for (int lane = 0; lane < LANES; ++lane)
        angles_rad[lane] = left[lane] + rest[lane] * (right[lane] - left[lane]);
}

// The access points of one episode.
struct Site {
    int count, width;  // M, and M padded
    float *x_m, *y_m, *height_square_m2, *axis_x, *axis_y;

    static constexpr int ROWS = 5;
    Site(const Game& game, Rows& rows)
        : count(game.num_aps), width(padded(count)), x_m(rows.take()), y_m(rows.take()),
          height_square_m2(rows.take()), axis_x(rows.take()), axis_y(rows.take()) {}

    void read(const State& state, int64_t episode) {
        const float* positions = state.ap_positions_m + episode * count * 2;
        for (int m = 0; m < count; ++m) {
            x_m[m] = positions[2 * m];
            y_m[m] = positions[2 * m + 1];
            height_square_m2[m] = square(state.height_diff_m[episode * count + m]);
            axis_y[m] = state.ap_orientation_rad[episode * count + m];
        }
        VECTORISED for (int m = 0; m < width; ++m) {
            axis_x[m] = cos_of(axis_y[m]);
            axis_y[m] = sin_of(axis_y[m]);
        }
    }
};

// Where a point lies as an array sees it: the angle to its axis, folded into [0, pi], and on which side.
struct Direction {
    float folded_rad, side, across_m;
};

INLINE Direction direction(float axis_x, float axis_y, float x_m, float y_m) {
    const float across = y_m * axis_x - x_m * axis_y;
    return {folded_angle(std::fabs(across), x_m * axis_x + y_m * axis_y), across < 0.0f ? -1.0f : 1.0f, across};
}

// What all access points measured of one user, and how far predictions at a point are from it. Loops take it by value:
// only then does a compiler know that nothing in them moves these pointers.
struct Links {
    Game game;
    Site site;
    int count, width;
    int fused_count = 0;
    float *spectra, *profiles;  // [M, L] normalised angular powers, [M, padded(A)] cosine similarity per direction
    // Measurements; is_fused in {0, 1}.
    float *rss_dbm, *bearing_rad, *peak, *implied_m, *is_fused, *nominal_rad, *power_std_db;
    // Shares of those that take part, of the left out, of all; their sum is 1.
    float *fused_share, *judge_share, *equal_share;
    // At the point that was last looked at: residuals of RSS and bearing, RSS per metre outwards.
    float *x_m, *y_m, *distance_m, *unit_x, *unit_y;
    float *rss_db, *slope_db_per_m, *folded_rad, *residual_rad, *mirrored_rad, *cosine;
    float rss_mad_db = 1.0f, bearing_mad = 1.0f;
    float *rss_scale_db, *sizes, *ones;
    bool is_read = false;  // by a front end that says how sure it is

    static int rows(const Game& game) { return 24 + game.num_antennas + padded(game.num_angles); }
    Links(const Game& game, const Site& site, Rows& rows)
        : game(game), site(site), count(site.count), width(site.width) {
        for (float** row : {&rss_dbm, &bearing_rad, &peak, &implied_m, &is_fused, &nominal_rad, &power_std_db, &fused_share,
                            &rss_scale_db, &judge_share, &equal_share, &x_m, &y_m, &distance_m, &unit_x, &unit_y, &rss_db,
                            &slope_db_per_m, &folded_rad, &residual_rad, &mirrored_rad, &cosine, &sizes, &ones})
            *row = rows.take();
        for (int m = 0; m < count; ++m) equal_share[m] = 1.0f / float(count);
        std::fill(ones, ones + width, 1.0f);
        std::fill(rss_scale_db, rss_scale_db + width, 1.0f);
        std::fill(power_std_db, power_std_db + width, 1.0f);
        spectra = rows.take(game.num_antennas);
        profiles = rows.take(padded(game.num_angles));
    }

    // Where the angle profile of an access point begins.
    INLINE int row(int m) const { return std::min(m, count - 1) * padded(game.num_angles); }

    void read(const State& state, int64_t episode, int user) {
        const int stride = game.num_ues;
        const int64_t first = episode * count * stride + user;
        fused_count = 0;
        for (int m = 0; m < count; ++m) {
            const int64_t link = first + int64_t(m) * stride;
            rss_dbm[m] = state.rss_dbm[link];
            bearing_rad[m] = state.bearing_rad[link];
            peak[m] = state.peak[link];
            if (state.implied_m != nullptr) implied_m[m] = state.implied_m[link];
            is_fused[m] = float(state.fused[link]);
            fused_count += state.fused[link];
        }
        const float fused_each = 1.0f / float(std::max(fused_count, 1));
        const float judge_each = 1.0f / float(std::max(count - fused_count, 1));
        VECTORISED for (int m = 0; m < width; ++m) {
            fused_share[m] = is_fused[m] * fused_each;
            nominal_rad[m] = 0.03f + 0.01f / most(std::fabs(sin_of(bearing_rad[m])), 0.05f);
        }
        is_read = state.bearing_std_rad != nullptr;
        if (is_read)
            for (int m = 0; m < count; ++m) {
                nominal_rad[m] = state.bearing_std_rad[first + int64_t(m) * stride];
                power_std_db[m] = state.power_std_db[first + int64_t(m) * stride];
            }
        for (int m = 0; m < count; ++m) judge_share[m] = (1.0f - is_fused[m]) * judge_each;
    }
};

// The spectra that the access points measured of one user, with length 1.
inline void read_spectra(const Links links, const State& state, int64_t episode, int user) {
    const int size = links.game.num_antennas;
    for (int m = 0; m < links.count; ++m) {
        const float* power = state.angular_power + ((episode * links.count + m) * links.game.num_ues + user) * size;
        float square_sum = 0.0f;
        for (int beam = 0; beam < size; ++beam) square_sum += power[beam] * power[beam];
        const float per_length = 1.0f / most(std::sqrt(square_sum), 1e-12f);
        for (int beam = 0; beam < size; ++beam) links.spectra[m * size + beam] = power[beam] * per_length;
    }
}

// Cosine similarity of every measured spectrum with that of every direction. To compute them where they are needed
// takes less time than to fetch them from memory.
inline void find_profiles(const Links links, const Tables& tables) {
    const int size = links.game.num_antennas, width = padded(links.game.num_angles);
    for (int m = 0; m < links.count; ++m) {
        float* profile = links.profiles + m * width;
        std::fill(profile, profile + width, 0.0f);
        for (int beam = 0; beam < size; ++beam) {
            const float share = links.spectra[m * size + beam], *row = tables.spectra_by_beam + beam * width;
            VECTORISED for (int i = 0; i < width; ++i) profile[i] += share * row[i];
        }
    }
}

// Geometry and residuals at a point. A game whose action is of RSS alone is spared the angles.
inline void look_at(const Links links, float point_x_m, float point_y_m, bool with_angles) {
    const Game game = links.game;
    const float per_decade = game.slope_db / LN_10;
    VECTORISED for (int m = 0; m < links.width; ++m) {
        const float x = nearest_image(game, point_x_m - links.site.x_m[m]);
        const float y = nearest_image(game, point_y_m - links.site.y_m[m]);
        const float ground = x * x + y * y;
        const float slant = most(ground + links.site.height_square_m2[m], 0.01f);
        const float distance = std::sqrt(most(ground, 0.25f));
        links.x_m[m] = x;
        links.y_m[m] = y;
        links.distance_m[m] = distance;
        links.unit_x[m] = x / distance;
        links.unit_y[m] = y / distance;
        links.rss_db[m] = links.rss_dbm[m] - predicted_dbm(game, slant);
        links.slope_db_per_m[m] = -per_decade * distance / slant;
    }
    if (!with_angles) return;
    VECTORISED for (int m = 0; m < links.width; ++m) {
        const Direction towards = direction(links.site.axis_x[m], links.site.axis_y[m], links.x_m[m], links.y_m[m]);
        const float apart = links.bearing_rad[m] + towards.folded_rad;
        links.residual_rad[m] = towards.side * (links.bearing_rad[m] - towards.folded_rad);
        links.mirrored_rad[m] = -towards.side * (apart > PI ? apart - 2.0f * PI : apart);
        links.folded_rad[m] = towards.folded_rad;
    }
}

// Cosine similarity of every measured spectrum with that of the direction of the point that was last looked at.
inline void find_cosines(const Links links, const Tables& tables) {
    const int size = links.game.num_antennas;
    for (int m = 0; m < links.count; ++m) {
        const Place place = place_of(links.game, links.folded_rad[m]);
        const float *measured = links.spectra + m * size, *low = tables.spectra + place.low * size;
        float cosine = 0.0f;
        for (int beam = 0; beam < size; ++beam)
            cosine += measured[beam] * (low[beam] + place.rest * (low[size + beam] - low[beam]));
        links.cosine[m] = cosine;
    }
}

// Lower median of |values| / scales over the access points that take part.
inline float median_size(const Links links, const float* values, const float* scales) {
    const int place = (links.fused_count + 1) / 2 - 1;
    if (links.fused_count == 0) return 0.0f;
    float* sizes = links.sizes;
    for (int m = 0; m < links.width; ++m)
        sizes[m] = links.is_fused[m] > 0.0f ? std::fabs(values[m]) / scales[m] : std::numeric_limits<float>::infinity();
    if (links.count > 64) {
        std::nth_element(sizes, sizes + place, sizes + links.count);
        return sizes[place];
    }
    // For a few values faster than sorting: the largest of those below which at most ``place`` others lie.
    float found = 0.0f;
    for (int m = 0; m < links.count; ++m) {
        int below = 0;
        const float size = sizes[m];
        for (int other = 0; other < links.width; ++other) below += sizes[other] < size;
        found = below <= place ? most(found, size) : found;
    }
    return found;
}

constexpr float READ_SCALE_FLOOR_DB = 0.1f;

// Standard deviations of the residuals from their median size.
inline void find_scales(Links& links) {
    const float mad_db = 1.48f * median_size(links, links.rss_db, links.ones);
    if (links.is_read) {
        // What the noise of the powers does not explain is the same for all of them.
        float noise = 0.0f;
        VECTORISED_SUM(noise) for (int m = 0; m < links.width; ++m)
            noise += links.fused_share[m] * square(links.power_std_db[m]);
        links.rss_mad_db = most(mad_db, READ_SCALE_FLOOR_DB);
        const float shared = most(square(links.rss_mad_db) - noise, 0.0f);
        VECTORISED for (int m = 0; m < links.width; ++m)
            links.rss_scale_db[m] = most(std::sqrt(square(links.power_std_db[m]) + shared), READ_SCALE_FLOOR_DB);
    } else {
        links.rss_mad_db = most(mad_db, 0.3f);
        std::fill(links.rss_scale_db, links.rss_scale_db + links.width, links.rss_mad_db);
    }
    links.bearing_mad = clamped(1.48f * median_size(links, links.residual_rad, links.nominal_rad), 1.0f, 20.0f);
}

}  // namespace cfpos
