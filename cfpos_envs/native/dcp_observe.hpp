// What the access points see before a round: the feature tables of scenarios/dcp/observe.py.
#pragma once

#include "dcp_links.hpp"

namespace cfpos {

constexpr int OWN_FEATURES = 10, SUMMARIES = 3;

// Whether RSS and AOA count in the round to come: scenarios/dcp/state.py, stage_terms.
struct Stage {
    float radial, tangential;

    Stage(const Game& game, int64_t round) : radial(float(game.uses_rss)), tangential(float(game.uses_aoa)) {
        if (game.stage_one_rounds == 0) return;
        const bool is_first = round < game.stage_one_rounds;
        radial = is_first || game.fusion == INFORMATION ? 1.0f : 0.0f;
        tangential = is_first ? 0.0f : 1.0f;
    }
};

struct Written {
    float* values;                // where the first access point's entries of this user go
    int64_t stride;               // from one access point to the next
    const float* inverse_scales;  // of the features

    void operator()(int feature, int m, float value) const {
        values[m * stride + feature] = clamped(value * inverse_scales[feature], -1.0f, 1.0f);
    }
};

// GAIN_FEATURES of scenarios/dcp/observe.py, in its order. ``columns``: one row per feature that differs between APs.
inline void observe_gain(const Game& game, const Links links, Stage stage, float spread_m, int64_t round, float* columns,
                  const Written& write) {
    const int width = links.width;
    float square_sum = 0.0f, cosine_sum = 0.0f;
    VECTORISED_SUM(square_sum, cosine_sum) for (int m = 0; m < width; ++m) {
        const float distance = links.distance_m[m], tangential = distance * sin_of(links.residual_rad[m]);
        columns[m] = distance / game.side_m;
        columns[width + m] = symlog_of(links.implied_m[m] - distance);
        columns[2 * width + m] = log_of(most(links.implied_m[m], 1.0f) / most(distance, 1.0f));
        columns[3 * width + m] = symlog_of(tangential);
        columns[4 * width + m] = links.residual_rad[m];
        columns[5 * width + m] = sin_of(links.bearing_rad[m]);
        columns[6 * width + m] = links.mirrored_rad[m];
        columns[7 * width + m] = links.unit_x[m];
        columns[8 * width + m] = links.unit_y[m];
        square_sum += links.fused_share[m] * square(links.rss_db[m]);
        cosine_sum += links.fused_share[m] * links.cosine[m];
    }
    const float common[] = {
        0.5f * log_of(square_sum + 1e-4f),
        log_of(most(1.0f - cosine_sum, 1e-4f)),
        symlog_of(spread_m),
        float(round) / float(game.rounds),
        stage.tangential - stage.radial,
    };
    for (int m = 0; m < links.count; ++m) {
        for (int feature = 0; feature < 9; ++feature) write(feature, m, columns[feature * width + m]);
        for (int feature = 0; feature < 5; ++feature) write(9 + feature, m, common[feature]);
    }
}

// OWN_LINK of scenarios/dcp/observe.py: ten rows, scaled and clipped.
inline void own_features(const Links links, const float* inverse_scales, float* columns) {
    const int width = links.width;
    VECTORISED for (int m = 0; m < width; ++m) {
        const float scale_rad = links.nominal_rad[m] * links.bearing_mad;
        const float rss_z = links.rss_db[m] / links.rss_scale_db[m], aoa_z = links.residual_rad[m] / scale_rad;
        columns[m] = asinh_of(rss_z);
        columns[width + m] = log_of(1.0f + rss_z * rss_z);
        columns[2 * width + m] = asinh_of(aoa_z);
        columns[3 * width + m] = log_of(1.0f + aoa_z * aoa_z);
        columns[4 * width + m] = asinh_of(links.rss_db[m] / 0.3f);
        columns[5 * width + m] = log_of(links.distance_m[m] / 30.0f);
        columns[6 * width + m] = links.is_read ? log_of(links.nominal_rad[m] / 0.03f) : sin_of(links.bearing_rad[m]);
        columns[7 * width + m] =
            log_of(links.is_read ? links.power_std_db[m] / 0.3f : most(1.0f - links.peak[m], 3e-4f));
        columns[8 * width + m] = log_of(most(1.0f - links.cosine[m], 3e-4f));
        columns[9 * width + m] = asinh_of(links.mirrored_rad[m] / scale_rad);
    }
    for (int feature = 0; feature < OWN_FEATURES; ++feature) {
        float* column = columns + feature * width;
        VECTORISED for (int m = 0; m < width; ++m)
            column[m] = clamped(column[m] * inverse_scales[feature], -1.0f, 1.0f);
    }
}

// Mean, median and lower quartile over the users of every AP and feature; ``columns`` [K][size] is sorted by that.
inline void summarise(const Game& game, float* columns, int size, float* mean, float* median, float* quartile) {
    const int users = game.num_ues;
    VECTORISED for (int i = 0; i < size; ++i) mean[i] = 0.0f;
    for (int k = 0; k < users; ++k)
        VECTORISED for (int i = 0; i < size; ++i) mean[i] += columns[k * size + i];
    for (int turn = 0; turn < users; ++turn)
        for (int low = turn % 2; low < users - 1; low += 2) {
            float *lower = columns + low * size, *upper = lower + size;
            VECTORISED for (int i = 0; i < size; ++i) {
                const float a = lower[i], b = upper[i];
                lower[i] = least(a, b);
                upper[i] = most(a, b);
            }
        }
    const float *middle = columns + (users - 1) / 2 * size, *above = columns + users / 2 * size;
    VECTORISED for (int i = 0; i < size; ++i) {
        mean[i] /= float(users);
        median[i] = 0.5f * (middle[i] + above[i]);
        quartile[i] = columns[game.quartile * size + i];
    }
}

inline void observe_episodes(const Game& game, const State& state, const Tables& tables, float* observations,
                      int64_t first, int64_t last) {
    const bool summaries = game.action != GAIN;
    const int width = padded(game.num_aps), users = game.num_ues, own_size = OWN_FEATURES * width;
    const int own_rows = summaries ? OWN_FEATURES * (users + SUMMARIES) : OWN_FEATURES;
    Rows rows(Site::ROWS + Links::rows(game) + own_rows, width);
    Site site(game, rows);
    Links links(game, site, rows);
    float* columns = rows.take(own_rows);
    const int64_t stride = int64_t(users) * game.num_features;
    for (int64_t episode = first; episode < last; ++episode) {
        site.read(state, episode);
        const Stage stage(game, state.round[episode]);
        for (int user = 0; user < users; ++user) {
            const int64_t place = episode * users + user;
            float* mine = observations + episode * game.num_aps * stride + int64_t(user) * game.num_features;
            const Written write{mine, stride, tables.inverse_scales};
            links.read(state, episode, user);
            look_at(links, state.consensus_m[2 * place], state.consensus_m[2 * place + 1], true);
            read_spectra(links, state, episode, user);
            find_cosines(links, tables);
            if (!summaries) {
                observe_gain(game, links, stage, state.spread_m[place], state.round[episode], columns, write);
                continue;
            }
            find_scales(links);
            float* own = columns + user * own_size;
            own_features(links, tables.inverse_scales, own);
            const int common = OWN_FEATURES * (1 + SUMMARIES);
            const float broadcast[] = {log_of(links.rss_mad_db), log_of(links.bearing_mad),
                                       float(state.round[episode]) / float(game.rounds),
                                       stage.tangential - stage.radial};
            for (int m = 0; m < game.num_aps; ++m) {
                for (int feature = 0; feature < OWN_FEATURES; ++feature)
                    mine[m * stride + feature] = own[feature * width + m];
                for (int feature = 0; feature < 4; ++feature) write(common + feature, m, broadcast[feature]);
            }
        }
        if (!summaries) continue;
        // Over its own users an AP sees its own bias: residuals that all lean one way.
        float* found = columns + users * own_size;
        summarise(game, columns, own_size, found, found + own_size, found + 2 * own_size);
        for (int m = 0; m < game.num_aps; ++m) {
            float* row = observations + (episode * game.num_aps + m) * stride + OWN_FEATURES;
            for (int i = 0; i < OWN_FEATURES * SUMMARIES; ++i) row[i] = found[i * width + m];
            for (int user = 1; user < users; ++user)
                std::copy(row, row + OWN_FEATURES * SUMMARIES, row + user * game.num_features);
        }
    }
}

}  // namespace cfpos
