// A round of the DCP games and the observation before it, episode by episode: what DcpScenario.step and .observe do.
//
// Episodes and users do not touch each other, so all temporaries are rows over the access points of one user and stay
// in the innermost cache. The equations and their sources are in docs/envs/dcp.md and in the Python functions named.

#include "dcp_judge.hpp"

namespace cfpos {

constexpr float LINE_SEARCH_GAINS[] = {0.0f, 0.5f, 1.0f, 2.0f, 4.0f, 8.0f};
constexpr int NUM_GAINS = 6;
constexpr int OWN_FEATURES = 10, SUMMARIES = 3;
constexpr int64_t LEAST_LINKS_PER_THREAD = 1 << 14;

// Whether RSS and AOA count in the round to come: scenarios/dcp/fusion.py, stage_terms.
struct Stage {
    float radial, tangential;

    Stage(const Game& game, int64_t round) : radial(float(game.uses_rss)), tangential(float(game.uses_aoa)) {
        if (game.stage_one_rounds == 0) return;
        const bool is_first = round < game.stage_one_rounds;
        radial = is_first || game.fusion == INFORMATION ? 1.0f : 0.0f;
        tangential = is_first ? 0.0f : 1.0f;
    }
};

// Observations -------------------------------------------------------------------------------------------------------

struct Written {
    float* values;                // where the first access point's entries of this user go
    int64_t stride;               // from one access point to the next
    const float* inverse_scales;  // of the features

    void operator()(int feature, int m, float value) const {
        values[m * stride + feature] = clamped(value * inverse_scales[feature], -1.0f, 1.0f);
    }
};

// GAIN_FEATURES of scenarios/dcp/observe.py, in its order. ``columns``: one row per feature that differs between APs.
void observe_gain(const Game& game, const Links links, Stage stage, float spread_m, int64_t round, float* columns,
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

// _OWN_LINK of scenarios/dcp/observe.py: ten rows, scaled and clipped.
void own_features(const Links links, const float* inverse_scales, float* columns) {
    const int width = links.width;
    VECTORISED for (int m = 0; m < width; ++m) {
        const float scale_rad = links.nominal_rad[m] * links.bearing_mad;
        const float rss_z = links.rss_db[m] / links.rss_scale_db, aoa_z = links.residual_rad[m] / scale_rad;
        columns[m] = asinh_of(rss_z);
        columns[width + m] = log_of(1.0f + rss_z * rss_z);
        columns[2 * width + m] = asinh_of(aoa_z);
        columns[3 * width + m] = log_of(1.0f + aoa_z * aoa_z);
        columns[4 * width + m] = asinh_of(links.rss_db[m] / 0.3f);
        columns[5 * width + m] = log_of(links.distance_m[m] / 30.0f);
        columns[6 * width + m] = sin_of(links.bearing_rad[m]);
        columns[7 * width + m] = log_of(most(1.0f - links.peak[m], 3e-4f));
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
void summarise(const Game& game, float* columns, int size, float* mean, float* median, float* quartile) {
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

void observe_episodes(const Game& game, const State& state, const Tables& tables, float* observations,
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
            const float broadcast[] = {log_of(links.rss_scale_db), log_of(links.bearing_mad),
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

// Rounds -------------------------------------------------------------------------------------------------------------

// What every access point asks for, per user: displacement along and across the line of sight, and its information.
struct Proposal {
    float *radial_m, *tangential_m, *weight_radial, *weight_tangential;

    static constexpr int ROWS = 4;
    explicit Proposal(Rows& rows)
        : radial_m(rows.take()), tangential_m(rows.take()), weight_radial(rows.take()),
          weight_tangential(rows.take()) {}
};

// Actions of one user: [a] rows over the access points; null for the neutral action 0. See fusion.py, propose.
void propose(const Game game, const Links links, Stage stage, const float* actions, const Proposal out) {
    const int width = links.width;
    const bool is_gain = game.action == GAIN, weighs = game.fusion == INFORMATION;
    const bool corrects = game.action == CONFIDENCE_CORRECTION;
    const float scale_db = links.rss_scale_db;
    VECTORISED for (int m = 0; m < width; ++m) {
        const float first = actions ? actions[m] : 0.0f, second = actions ? actions[width + m] : 0.0f;
        const float distance = links.distance_m[m];
        float residual_db = links.rss_db[m], residual_rad = links.residual_rad[m];
        if (corrects && actions) {
            const float correction = actions[2 * width + m];
            residual_db -= game.correction_db * std::fabs(correction) * correction;
            residual_rad -= game.correction_rad * actions[3 * width + m];
        }
        float radial = residual_db / links.slope_db_per_m[m], tangential = residual_rad * distance;
        if (is_gain) {
            radial = (1.0f + first) * (links.implied_m[m] - distance);
            tangential = (1.0f + second) * distance * sin_of(residual_rad);
        }
        out.radial_m[m] = stage.radial * radial;
        out.tangential_m[m] = stage.tangential * tangential;
        if (weighs) {
            // Information (g / sigma)^2 with Student-t robustness, nu = 4.
            const float scale_rad = links.nominal_rad[m] * links.bearing_mad;
            float of_rss = square(links.slope_db_per_m[m] / scale_db) * 5.0f / (4.0f + square(residual_db / scale_db));
            float of_aoa = 1.0f / square(distance * scale_rad) * 5.0f / (4.0f + square(residual_rad / scale_rad));
            of_rss *= is_gain ? 1.0f : exp_of(game.confidence_scale * first);
            of_aoa *= is_gain ? 1.0f : exp_of(game.confidence_scale * second);
            out.weight_radial[m] = stage.radial * links.is_fused[m] * of_rss;
            out.weight_tangential[m] = stage.tangential * links.is_fused[m] * of_aoa;
        }
    }
}

// 2 x 2 normal equations [[xx, xy], [xy, yy]] p = (x, y).
struct Normal {
    float xx = 0.0f, xy = 0.0f, yy = 0.0f, x = 0.0f, y = 0.0f;
};

// One access point's contribution with radial unit vector (ux, uy).
INLINE Normal normal_term(const Proposal& proposal, const Links& links, int m) {
    const float ux = links.unit_x[m], uy = links.unit_y[m];
    const float radial = proposal.weight_radial[m], tangential = proposal.weight_tangential[m];
    const float pull_radial = radial * proposal.radial_m[m], pull_tangential = tangential * proposal.tangential_m[m];
    return {radial * ux * ux + tangential * uy * uy, (radial - tangential) * ux * uy,
            radial * uy * uy + tangential * ux * ux, pull_radial * ux - pull_tangential * uy,
            pull_radial * uy + pull_tangential * ux};
}

struct Moves {
    float *x, *y;

    static constexpr int ROWS = 2;
    explicit Moves(Rows& rows) : x(rows.take()), y(rows.take()) {}
};

// Per access point the fused displacement had it acted neutrally; the spare entry ``links.count``, which changes
// nothing, is the displacement itself: with one and the same arithmetic a neutral access point earns exactly nothing.
void information_fusion(const Game game, const Links links, const Proposal proposal, const Proposal neutral,
                        const Moves without) {
    float xx = 0.0f, xy = 0.0f, yy = 0.0f, x = 0.0f, y = 0.0f;
    const int width = links.width;
    VECTORISED_SUM(xx, xy, yy, x, y) for (int m = 0; m < width; ++m) {
        const Normal term = normal_term(proposal, links, m);
        xx += term.xx;
        xy += term.xy;
        yy += term.yy;
        x += term.x;
        y += term.y;
    }
    VECTORISED for (int m = 0; m < width; ++m) {
        const Normal term = normal_term(proposal, links, m), other = normal_term(neutral, links, m);
        const float a = xx + (other.xx - term.xx) + game.ridge, c = yy + (other.yy - term.yy) + game.ridge;
        const float b = xy + (other.xy - term.xy);
        const float right_x = x + (other.x - term.x), right_y = y + (other.y - term.y);
        const float determinant = a * c - b * b;
        const float move_x = (c * right_x - b * right_y) / determinant;
        const float move_y = (a * right_y - b * right_x) / determinant;
        const float length = std::sqrt(move_x * move_x + move_y * move_y);
        const float shorter = game.max_step_m / most(length, game.max_step_m);
        without.x[m] = move_x * shorter;
        without.y[m] = move_y * shorter;
    }
}

struct Result {
    float* consensus_m;     // [B, K, 2]
    float* spread_m;        // [B, K]
    float* entity_rewards;  // [B, M, K]
    float* rewards;         // [B, M]
    float* objective;       // [B, K]
    float* similarity;      // [B]
    float* score;           // [B]
};

void step_episodes(const Game& game, const State& state, const Tables& tables, const float* actions,
                   const Result& result, int64_t first, int64_t last) {
    const int count = game.num_aps, users = game.num_ues, width = padded(count);
    const bool searches = game.fusion == LINE_SEARCH, weighs = game.fusion == INFORMATION;
    const bool scaled = game.similarity == ROBUST || weighs;
    const bool with_angles = game.uses_aoa || game.stage_one_rounds || scaled;
    const bool reads_profiles = game.similarity == LOG && game.uses_aoa;
    Rows rows(Site::ROWS + Links::rows(game) + 2 * Proposal::ROWS + 2 * Moves::ROWS + 3 + game.action_size, width);
    Site site(game, rows);
    Links links(game, site, rows);
    Proposal proposal(rows), neutral(rows);
    Moves moves(rows), without(rows);
    float *action_rows = rows.take(game.action_size), *points_x = rows.take(), *points_y = rows.take();
    float* values = rows.take();
    for (int64_t episode = first; episode < last; ++episode) {
        site.read(state, episode);
        const Stage stage(game, state.round[episode]);
        float* rewards = result.rewards + episode * count;
        std::fill(rewards, rewards + count, 0.0f);
        double similarity_sum = 0.0, score_sum = 0.0;
        for (int user = 0; user < users; ++user) {
            const int64_t place = episode * users + user;
            const float here_x = state.consensus_m[2 * place], here_y = state.consensus_m[2 * place + 1];
            links.read(state, episode, user);
            look_at(links, here_x, here_y, with_angles);
            if (scaled) find_scales(links);
            if (reads_profiles) {
                read_spectra(links, state, episode, user);
                find_profiles(links, tables);
            }
            for (int m = 0; m < count; ++m)
                for (int a = 0; a < game.action_size; ++a)
                    action_rows[a * width + m] = clamped(
                        actions[((episode * count + m) * users + user) * game.action_size + a], -1.0f, 1.0f);
            propose(game, links, stage, action_rows, proposal);
            // Where each report lies, beside the consensus, and how far the reports are spread.
            float mean_x = 0.0f, mean_y = 0.0f, spread = 0.0f;
            VECTORISED_SUM(mean_x, mean_y) for (int m = 0; m < width; ++m) {
                const float radial = proposal.radial_m[m], tangential = proposal.tangential_m[m];
                moves.x[m] = radial * links.unit_x[m] - tangential * links.unit_y[m];
                moves.y[m] = radial * links.unit_y[m] + tangential * links.unit_x[m];
                mean_x += links.fused_share[m] * moves.x[m];
                mean_y += links.fused_share[m] * moves.y[m];
            }
            VECTORISED_SUM(spread) for (int m = 0; m < width; ++m)
                spread += links.fused_share[m] * (square(moves.x[m] - mean_x) + square(moves.y[m] - mean_y));
            result.spread_m[place] = std::sqrt(spread);
            // Fusion.
            float step_x = mean_x, step_y = mean_y;
            if (weighs) {
                propose(game, links, stage, nullptr, neutral);
                information_fusion(game, links, proposal, neutral, without);
                step_x = without.x[count];
                step_y = without.y[count];
            }
            if (searches) {
                float points[2][LANES] = {}, found[LANES];
                for (int i = 0; i < NUM_GAINS; ++i) {
                    points[0][i] = into_area(game, here_x + LINE_SEARCH_GAINS[i] * step_x);
                    points[1][i] = into_area(game, here_y + LINE_SEARCH_GAINS[i] * step_y);
                }
                const float* shares = game.holds_out ? links.fused_share : links.equal_share;
                judge(game.similarity, links, {shares, stage.radial, stage.tangential}, points[0], points[1],
                      NUM_GAINS, found);
                const float gain = LINE_SEARCH_GAINS[std::max_element(found, found + NUM_GAINS) - found];
                step_x *= gain;
                step_y *= gain;
            }
            const float fused_x = into_area(game, here_x + step_x), fused_y = into_area(game, here_y + step_y);
            result.consensus_m[2 * place] = fused_x;
            result.consensus_m[2 * place + 1] = fused_y;
            // Rewards. The scale of ``robust`` moves with the estimate; the score is then that of ``cauchy``.
            const Judges judges{game.holds_out ? links.judge_share : links.equal_share, stage.radial, stage.tangential};
            float after, score;
            judge(game.similarity, links, judges, &fused_x, &fused_y, 1, &after);
            score = after;
            if (game.similarity == ROBUST) judge(CAUCHY, links, judges, &fused_x, &fused_y, 1, &score);
            result.objective[place] = after;
            similarity_sum += after;
            score_sum += score;
            if (game.reward == CREDIT) {
                // M grad(s) . (fused - fused with this access point neutral), see rewards.py, counterfactual_credit.
                const Slope slope = similarity_slope(game.similarity, links, judges, fused_x, fused_y);
                VECTORISED for (int m = 0; m < width; ++m)
                    values[m] = float(count) * (slope.x * (step_x - without.x[m]) + slope.y * (step_y - without.y[m]));
            } else {
                float before;
                judge(game.similarity, links, judges, &here_x, &here_y, 1, &before);
                if (game.reward == LOCAL) {
                    for (int m = 0; m < count; ++m) {
                        points_x[m] = into_area(game, here_x + moves.x[m]);
                        points_y[m] = into_area(game, here_y + moves.y[m]);
                    }
                    judge(game.similarity, links, judges, points_x, points_y, count, values);
                    for (int m = 0; m < count; ++m) values[m] -= before;
                } else {
                    std::fill(values, values + count, after - before);
                }
            }
            for (int m = 0; m < count; ++m) {
                result.entity_rewards[(episode * count + m) * users + user] = values[m];
                rewards[m] += values[m];
            }
        }
        result.similarity[episode] = float(similarity_sum / users);
        result.score[episode] = float(score_sum / users);
    }
}

// Episodes that are worth a thread of their own.
int64_t least_episodes(const Game& game) {
    const int64_t points = game.reward == LOCAL ? game.num_aps + NUM_GAINS : NUM_GAINS;
    return LEAST_LINKS_PER_THREAD / std::max<int64_t>(1, points * game.num_aps * game.num_ues) + 1;
}

}  // namespace cfpos

extern "C" {

void cfpos_dcp_observe(const cfpos::Game* game, const cfpos::State* state, const cfpos::Tables* tables,
                       float* observations, int64_t episodes, int threads) {
    cfpos::for_parts(episodes, threads, cfpos::least_episodes(*game), [&](int64_t first, int64_t last) {
        cfpos::observe_episodes(*game, *state, *tables, observations, first, last);
    });
}

void cfpos_dcp_step(const cfpos::Game* game, const cfpos::State* state, const cfpos::Tables* tables,
                    const float* actions, const cfpos::Result* result, int64_t episodes, int threads) {
    cfpos::for_parts(episodes, threads, cfpos::least_episodes(*game), [&](int64_t first, int64_t last) {
        cfpos::step_episodes(*game, *state, *tables, actions, *result, first, last);
    });
}

}  // extern "C"
