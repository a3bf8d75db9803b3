// A round of the DCP games and the observation before it, episode by episode: what DcpScenario.step and .observe do.
//
// Episodes and users do not touch each other, so all temporaries are rows over the access points of one user and stay
// in the innermost cache. The equations and their sources are in docs/envs/dcp.md and in the Python functions named.

#include <atomic>

#include "dcp_judge.hpp"
#include "dcp_observe.hpp"

namespace cfpos {

constexpr float LINE_SEARCH_GAINS[] = {0.0f, 0.5f, 1.0f, 2.0f, 4.0f, 8.0f};
constexpr int NUM_GAINS = 6;
constexpr int64_t LEAST_LINKS_PER_THREAD = 1 << 14;

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
            const float scale_db = links.rss_scale_db[m], scale_rad = links.nominal_rad[m] * links.bearing_mad;
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

// Whether all actions were finite.
bool step_episodes(const Game& game, const State& state, const Tables& tables, const float* actions,
                   const Result& result, int64_t first, int64_t last) {
    float alarm = 0.0f;  // stays 0 unless an action is NaN or infinite
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
                for (int a = 0; a < game.action_size; ++a) {
                    const float action = actions[((episode * count + m) * users + user) * game.action_size + a];
                    alarm += 0.0f * action;
                    action_rows[a * width + m] = clamped(action, -1.0f, 1.0f);
                }
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
                // M grad(s) . (fused - fused with this access point neutral), see ap_game.py, counterfactual_credit.
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
    return alarm == 0.0f;
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

// Whether all actions were finite.
int cfpos_dcp_step(const cfpos::Game* game, const cfpos::State* state, const cfpos::Tables* tables,
                   const float* actions, const cfpos::Result* result, int64_t episodes, int threads) {
    std::atomic<bool> finite{true};
    cfpos::for_parts(episodes, threads, cfpos::least_episodes(*game), [&](int64_t first, int64_t last) {
        if (!cfpos::step_episodes(*game, *state, *tables, actions, *result, first, last)) finite = false;
    });
    return finite;
}

}  // extern "C"
