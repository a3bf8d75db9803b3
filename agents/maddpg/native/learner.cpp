// MADDPG's updates of critics and actors: a tile of samples goes through all networks and back while it is in the cache.

#include "critics.hpp"

namespace cfpos {

enum Kind : int64_t { CONCATENATED = 0, PERMUTATION_INVARIANT = 1, OWN = 2 };

struct CriticNets {
    Mlp embedding, net;  // no embedding but for the permutation-invariant one
};

// Numbers of every sample and agent: one agent's vector lies densely.
template <class Number>
struct Vectors {
    const Number* numbers;
    int64_t each_sample, each_agent;

    const Number* of(int64_t sample, int64_t agent) const {
        return numbers + sample * each_sample + agent * each_agent;
    }
};

// A batch and the networks that learn from it.
struct Update {
    int64_t kind, samples, agents, observation, action, critics, tile;
    Vectors<float> observations, actions, rewards, next_observations;
    Vectors<bool> terminated;
    const float* noise;  // [agents, action, samples] on the target actions, or null
    float gamma, weight, penalty, saturated;
    Mlp actor, target_actor;
    const CriticNets *online, *targets;  // [critics]
    // Critics: sums of squared errors and of values, each [critics]. Actors: sums of squared outputs before tanh, of
    // values, of saturated outputs.
    double* sums;
};

std::unique_ptr<Critic> make_critic(const Update& update, const CriticNets& nets, int64_t samples, Use use) {
    const Sizes sizes = {update.agents, update.observation, update.action};
    switch (update.kind) {
        case CONCATENATED: return std::make_unique<ConcatenatedCritic>(nets.net, sizes, samples, use);
        case PERMUTATION_INVARIANT:
            return std::make_unique<PermutationInvariantCritic>(nets.embedding, nets.net, sizes, samples, use);
        default: return std::make_unique<OwnCritic>(nets.net, sizes, samples, use);
    }
}

void fetch(const Update& update, const Vectors<float>& vectors, int64_t first, int64_t samples, int64_t size,
           Activations& rows) {
    for (int64_t agent = 0; agent < update.agents; ++agent)
        for (int64_t sample = 0; sample < samples; ++sample)
            copy(vectors.of(first + sample, agent), size, rows.row(agent * samples + sample));
}

class CriticsPass {
public:
    CriticsPass(const Update& update, int64_t samples, Use learning)
        : update_(update),
          observations_(update.agents * samples, update.observation),
          actions_(update.agents * samples, update.action),
          targets_(size_t(update.agents * samples)),
          sums_(size_t(2 * update.critics), 0.0) {
        for (int64_t critic = 0; critic < update.critics; ++critic)
            critics_.push_back(make_critic(update, update.online[critic], samples, learning));
        if (update.gamma == 0.0f) return;
        actor_ = std::make_unique<Perceptron>(update.target_actor, update.agents, samples, Use::values);
        for (int64_t critic = 0; critic < update.critics; ++critic)
            following_.push_back(make_critic(update, update.targets[critic], samples, Use::values));
    }

    void tile(int64_t first, int64_t samples) {
        set_targets(first, samples);
        fetch(update_, update_.observations, first, samples, update_.observation, observations_);
        fetch(update_, update_.actions, first, samples, update_.action, actions_);
        const int64_t rows = update_.agents * samples;
        for (int64_t index = 0; index < update_.critics; ++index) {
            Critic& critic = *critics_[index];
            critic.values(samples, observations_, actions_);
            const float* values = critic.rest().outputs().row(0);
            float* gradients = critic.rest().gradients().row(0);
            float squares = 0.0f, total = 0.0f;
            for (int64_t row = 0; row < rows; ++row) {
                const float value = values[row * LANES], error = value - targets_[row];
                squares += error * error;
                total += value;
                gradients[row * LANES] = 2.0f * update_.weight * error;
            }
            sums_[index] += squares;
            sums_[update_.critics + index] += total;
            critic.learn(samples);
        }
    }

    void collect() const {
        for (const auto& critic : critics_) critic->collect();
        for (size_t i = 0; i < sums_.size(); ++i) update_.sums[i] += sums_[i];
    }

private:
    // y = r + gamma (1 - terminated) min Q'(o', mu'(o'))
    void set_targets(int64_t first, int64_t samples) {
        for (int64_t agent = 0; agent < update_.agents; ++agent)
            for (int64_t sample = 0; sample < samples; ++sample)
                targets_[agent * samples + sample] = *update_.rewards.of(first + sample, agent);
        if (update_.gamma == 0.0f) return;
        fetch(update_, update_.next_observations, first, samples, update_.observation, observations_);
        actor_->values(samples, observations_);
        Activations& actions = actor_->rest.outputs();
        const int64_t rows = update_.agents * samples;
        float* all = actions.row(0);
        VECTORISED for (int64_t i = 0; i < rows * actions.width(); ++i) all[i] = tanh_of(all[i]);
        for (int64_t row = 0; update_.noise && row < rows; ++row) {
            float* action = actions.row(row);
            const float* noise = update_.noise + row / samples * update_.action * update_.samples + first + row % samples;
            for (int64_t i = 0; i < update_.action; ++i)
                action[i] = clamped(action[i] + noise[i * update_.samples], -1.0f, 1.0f);
        }
        for (const auto& critic : following_) critic->values(samples, observations_, actions);
        for (int64_t agent = 0; agent < update_.agents; ++agent)
            for (int64_t sample = 0; sample < samples; ++sample) {
                if (*update_.terminated.of(first + sample, agent)) continue;
                const int64_t row = agent * samples + sample;
                float lowest = *following_[0]->rest().outputs().row(row);
                for (size_t critic = 1; critic < following_.size(); ++critic)
                    lowest = least(*following_[critic]->rest().outputs().row(row), lowest);
                targets_[row] += update_.gamma * lowest;
            }
    }

    const Update& update_;
    std::vector<std::unique_ptr<Critic>> critics_, following_;
    std::unique_ptr<Perceptron> actor_;
    Activations observations_, actions_;
    std::vector<float> targets_;
    std::vector<double> sums_;
};

class ActorPass {
public:
    ActorPass(const Update& update, int64_t samples, Use learning)
        : update_(update),
          actor_(update.actor, update.agents, samples, learning),
          critic_(make_critic(update, update.online[0], samples, Use::own_action)),
          observations_(update.agents * samples, update.observation),
          actions_(update.agents * samples, update.action),
          own_(update.agents * samples, update.action),
          own_gradients_(update.agents * samples, update.action) {}

    void tile(int64_t first, int64_t samples) {
        fetch(update_, update_.observations, first, samples, update_.observation, observations_);
        fetch(update_, update_.actions, first, samples, update_.action, actions_);
        actor_.values(samples, observations_);
        const int64_t rows = update_.agents * samples, numbers = rows * own_.width();
        // Rows are filled up with zeros, which change nothing.
        const float* output = actor_.rest.outputs().row(0);
        float* own = own_.row(0);
        float squares = 0.0f, values = 0.0f, saturated = 0.0f;
        VECTORISED_SUM(squares, saturated) for (int64_t i = 0; i < numbers; ++i) {
            own[i] = tanh_of(output[i]);
            squares += output[i] * output[i];
            saturated += std::fabs(output[i]) > update_.saturated ? 1.0f : 0.0f;
        }
        critic_->own_values(samples, observations_, actions_, own_);
        const float* value = critic_->rest().outputs().row(0);
        float* gradients = critic_->rest().gradients().row(0);
        for (int64_t row = 0; row < rows; ++row) {
            values += value[row * LANES];
            gradients[row * LANES] = -update_.weight;
        }
        critic_->own_backward(samples, own_gradients_);
        const float* by_own = own_gradients_.row(0);
        const float pull = 2.0f * update_.weight * update_.penalty;
        float* gradient = actor_.rest.gradients().row(0);
        VECTORISED for (int64_t i = 0; i < numbers; ++i)
            gradient[i] = by_own[i] * (1.0f - own[i] * own[i]) + pull * output[i];
        actor_.learn(samples, observations_);
        sums_[0] += squares;
        sums_[1] += values;
        sums_[2] += saturated;
    }

    void collect() const {
        actor_.collect();
        for (int i = 0; i < 3; ++i) update_.sums[i] += sums_[i];
    }

private:
    const Update& update_;
    Perceptron actor_;
    std::unique_ptr<Critic> critic_;
    Activations observations_, actions_, own_, own_gradients_;
    double sums_[3] = {};
};

// Tile after tile, in as many threads as there are; gradients are added up in the order of the tiles.
template <class Pass>
void run(const Update& update, int threads) {
    const int64_t tiles = (update.samples + update.tile - 1) / update.tile;
    std::vector<std::unique_ptr<Pass>> passes(static_cast<size_t>(tiles));
    const Use learning = std::min<int64_t>(tiles, threads) < 2 ? Use::learning_alone : Use::learning;
    for_parts(tiles, threads, 1, [&](int64_t begin, int64_t end) {
        passes[begin] = std::make_unique<Pass>(update, std::min(update.tile, update.samples), learning);
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t first = tile * update.tile;
            passes[begin]->tile(first, std::min(update.tile, update.samples - first));
        }
    });
    for (const auto& pass : passes)
        if (pass) pass->collect();
}

}  // namespace cfpos

extern "C" {

void cfpos_update_critics(const cfpos::Update* update, int threads) { cfpos::run<cfpos::CriticsPass>(*update, threads); }

void cfpos_update_actor(const cfpos::Update* update, int threads) { cfpos::run<cfpos::ActorPass>(*update, threads); }

}  // extern "C"
