// Critics on tiles of a batch (see perceptrons.hpp); the values are those of agents/maddpg/critics.py, the gradients those of its losses.py.
#pragma once

#include <memory>

#include "perceptrons.hpp"

namespace cfpos {

struct Sizes {
    int64_t agents, observation, action;
};

// See ``Critic`` of agents/maddpg/critics.py: ``learn`` adds the gradients of the parameters, ``own_backward`` gives those of
// the exchanged actions; values and their gradients are in ``rest()``.
class Critic {
public:
    virtual ~Critic() = default;
    virtual Rest& rest() = 0;
    virtual void values(int64_t samples, Activations& observations, Activations& actions) = 0;
    virtual void learn(int64_t samples) = 0;
    virtual void own_values(int64_t samples, Activations& observations, Activations& actions, Activations& own) = 0;
    virtual void own_backward(int64_t samples, Activations& by_own) = 0;
    virtual void collect() const = 0;
};

INLINE void join(const float* observation, const float* action, const Sizes& sizes, float* pair) {
    copy(observation, sizes.observation, pair);
    copy(action, sizes.action, pair + sizes.observation);
}

// out = a - b in rows of equal width
INLINE void difference(Activations& a, Activations& b, int64_t rows, Activations& out) {
    const float *from = a.row(0), *less = b.row(0);
    float* to = out.row(0);
    VECTORISED for (int64_t i = 0; i < rows * out.width(); ++i) to[i] = from[i] - less[i];
}

class OwnCritic final : public Critic {
public:
    OwnCritic(const Mlp& mlp, const Sizes& sizes, int64_t samples, Use use)
        : sizes_(sizes),
          net_(mlp, sizes.agents, samples, use),
          action_(mlp.parameters[0], mlp.count, mlp.sizes[1], mlp.sizes[0], sizes.action, sizes.observation),
          pairs_(sizes.agents * samples, sizes.observation + sizes.action) {
        if (use == Use::own_action) action_.prepare_backward();
    }

    Rest& rest() override { return net_.rest; }

    void values(int64_t samples, Activations& observations, Activations& actions) override {
        for (int64_t row = 0; row < sizes_.agents * samples; ++row)
            join(observations.row(row), actions.row(row), sizes_, pairs_.row(row));
        net_.values(samples, pairs_);
    }

    void learn(int64_t samples) override { net_.learn(samples, pairs_); }

    void own_values(int64_t samples, Activations& observations, Activations&, Activations& own) override {
        values(samples, observations, own);
    }

    void own_backward(int64_t samples, Activations& by_own) override {
        net_.rest.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            net_.rest.backward(net, row, rows, false);
            action_.backward(net, net_.rest.first_gradients().row(row), rows, by_own.row(row), {});
        });
    }

    void collect() const override { net_.collect(); }

private:
    Sizes sizes_;
    Perceptron net_;
    Linear action_;
    Activations pairs_;
};

class ConcatenatedCritic final : public Critic {
public:
    ConcatenatedCritic(const Mlp& mlp, const Sizes& sizes, int64_t samples, Use use)
        : sizes_(sizes),
          rest_(mlp, sizes.agents, samples, use),
          first_(mlp.parameters[0], mlp.count, mlp.sizes[1], mlp.sizes[0], mlp.sizes[0]),
          own_(mlp.parameters[0], mlp.count, mlp.sizes[1], mlp.sizes[0], sizes.action,
               sizes.agents * sizes.observation, sizes.action),
          joint_(samples, mlp.sizes[0]),
          change_(sizes.agents * samples, sizes.action) {
        first_.prepare_forward();
        if (learns(use)) first_.prepare_gradient(mlp.gradients[0], use == Use::learning_alone);
        if (use != Use::own_action) return;
        own_.prepare_forward();
        own_.prepare_backward();
    }

    Rest& rest() override { return rest_; }

    void values(int64_t samples, Activations& observations, Activations& actions) override {
        join_all(samples, observations, actions);
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            sums(net, row, rows, rest_.gated());
            rest_.finish(net, row, rows);
        });
    }

    void learn(int64_t samples) override {
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            rest_.backward(net, row, rows, true);
            first_.learn(net, rest_.first_gradients().row(row), joint_.row(0), joint_.width(), rows);
        });
    }

    void own_values(int64_t samples, Activations& observations, Activations& actions, Activations& own) override {
        join_all(samples, observations, actions);
        difference(own, actions, sizes_.agents * samples, change_);
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            sums(net, row, rows, false);
            own_.forward(net, change_.row(row), change_.width(), rows, rest_.first().row(row),
                         {nullptr, true, rest_.gated()});
            rest_.finish(net, row, rows);
        });
    }

    void own_backward(int64_t samples, Activations& by_own) override {
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            rest_.backward(net, row, rows, false);
            own_.backward(net, rest_.first_gradients().row(row), rows, by_own.row(row), {});
        });
    }

    void collect() const override {
        first_.collect();
        rest_.collect();
    }

private:
    void join_all(int64_t samples, Activations& observations, Activations& actions) {
        for (int64_t agent = 0; agent < sizes_.agents; ++agent)
            for (int64_t sample = 0; sample < samples; ++sample) {
                const int64_t row = agent * samples + sample;
                float* joint = joint_.row(sample);
                copy(observations.row(row), sizes_.observation, joint + agent * sizes_.observation);
                copy(actions.row(row), sizes_.action,
                     joint + sizes_.agents * sizes_.observation + agent * sizes_.action);
            }
    }

    void sums(int64_t net, int64_t row, int64_t rows, bool relu) {
        first_.forward(net, joint_.row(0), joint_.width(), rows, rest_.first().row(row),
                       {rest_.bias(net), false, relu});
    }

    Sizes sizes_;
    Rest rest_;
    Linear first_, own_;
    Activations joint_, change_;
};

class PermutationInvariantCritic final : public Critic {
public:
    PermutationInvariantCritic(const Mlp& embedding, const Mlp& head, const Sizes& sizes, int64_t samples, Use use)
        : sizes_(sizes),
          embedding_(embedding),
          rest_(head, sizes.agents, samples, use),
          embed_(embedding.parameters[0], 1, embedding.sizes[1], embedding.sizes[0], embedding.sizes[0]),
          action_(embedding.parameters[0], 1, embedding.sizes[1], embedding.sizes[0], sizes.action, sizes.observation),
          embed_bias_(embedding.parameters[1], 1, embedding.sizes[1]) {
        const int64_t width = embedding.sizes[1], outputs = head.sizes[1], rows = sizes.agents * samples;
        const float* mixing = head.parameters[0];
        listen_ = Linear(mixing, head.count, outputs, 2 * width, width);
        hear_ = Linear(mixing, head.count, outputs, 2 * width, width, width);
        embed_.prepare_forward();
        hear_.prepare_forward();
        pairs_ = Activations(rows, embedding.sizes[0]);
        embedded_ = Activations(rows, width);
        mean_ = Activations(samples, width);
        if (use == Use::own_action) {
            both_weights_.resize(size_t(head.count * outputs * width));
            for (int64_t out = 0; out < head.count * outputs; ++out)
                for (int64_t k = 0; k < width; ++k)
                    both_weights_[out * width + k] =
                        mixing[2 * out * width + k] + mixing[(2 * out + 1) * width + k] / float(sizes.agents);
            both_ = Linear(both_weights_.data(), head.count, outputs, width, width);
            both_.prepare_forward();
            both_.prepare_backward();
            action_.prepare_forward();
            action_.prepare_backward();
            change_ = Activations(rows, sizes.action);
            exchanged_ = Activations(rows, width);
            back_ = Activations(rows, width);
            return;
        }
        listen_.prepare_forward();
        common_ = Activations(samples, outputs);
        if (!learns(use)) return;
        for (Linear* linear : {&listen_, &hear_}) {
            linear->prepare_backward();
            linear->prepare_gradient(head.gradients[0], use == Use::learning_alone);
        }
        embed_.prepare_gradient(embedding.gradients[0], use == Use::learning_alone);
        heard_ = Activations(samples, outputs);
        from_mean_ = Activations(samples, width);
        back_ = Activations(rows, width);
    }

    Rest& rest() override { return rest_; }

    void values(int64_t samples, Activations& observations, Activations& actions) override {
        embed(samples, observations, actions, true);
        take_mean(samples);
        if (!rest_.separate()) {
            hear_.forward(0, mean_.row(0), mean_.width(), samples, common_.row(0), {rest_.bias(0)});
            repeat(samples, common_, rest_.first());
        }
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            float* first = rest_.first().row(row);
            if (rest_.separate()) hear_.forward(net, mean_.row(0), mean_.width(), rows, first, {rest_.bias(net)});
            listen_.forward(net, embedded_.row(row), embedded_.width(), rows, first, {nullptr, true, rest_.gated()});
            rest_.finish(net, row, rows);
        });
    }

    void learn(int64_t samples) override {
        Activations& first = rest_.first_gradients();
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            rest_.backward(net, row, rows, true);
            listen_.learn(net, first.row(row), embedded_.row(row), embedded_.width(), rows);
            listen_.backward(net, first.row(row), rows, back_.row(row), {});
            if (rest_.separate()) by_mean(net, first.row(row), rows);
        });
        if (!rest_.separate()) {
            total(samples, first, heard_);
            by_mean(0, heard_.row(0), samples);
        }
        add_from_mean(samples);
        const int64_t rows = sizes_.agents * samples;
        embed_.learn(0, back_.row(0), pairs_.row(0), pairs_.width(), rows);
        embed_bias_.learn(0, back_.row(0), rows);
    }

    // V e_i + P m changes to V e_i' + P (m + (e_i' - e_i) / n) = (V + P / n) e_i' + P (m - e_i / n).
    void own_values(int64_t samples, Activations& observations, Activations& actions, Activations& own) override {
        const int64_t rows = sizes_.agents * samples, width = embedded_.width();
        embed(samples, observations, actions, false);
        std::copy_n(embedded_.row(0), rows * width, exchanged_.row(0));
        difference(own, actions, rows, change_);
        action_.forward(0, change_.row(0), change_.width(), rows, exchanged_.row(0), {nullptr, true, true});
        float* embedded = embedded_.row(0);
        VECTORISED for (int64_t i = 0; i < rows * width; ++i) embedded[i] = embedded[i] < 0.0f ? 0.0f : embedded[i];
        take_mean(samples);
        for (int64_t agent = 0; agent < sizes_.agents; ++agent) {
            const float* mean = mean_.row(0);
            float* one = embedded_.row(agent * samples);
            VECTORISED for (int64_t i = 0; i < samples * width; ++i) one[i] = mean[i] - one[i] / float(sizes_.agents);
        }
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t count) {
            float* first = rest_.first().row(row);
            both_.forward(net, exchanged_.row(row), width, count, first, {rest_.bias(net)});
            hear_.forward(net, embedded_.row(row), width, count, first, {nullptr, true, rest_.gated()});
            rest_.finish(net, row, count);
        });
    }

    void own_backward(int64_t samples, Activations& by_own) override {
        rest_.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            rest_.backward(net, row, rows, false);
            both_.backward(net, rest_.first_gradients().row(row), rows, back_.row(row),
                           {nullptr, false, false, exchanged_.row(row)});
        });
        action_.backward(0, back_.row(0), sizes_.agents * samples, by_own.row(0), {});
    }

    void collect() const override {
        embed_.collect();
        embed_bias_.collect(embedding_.gradients[1]);
        listen_.collect();
        hear_.collect();
        rest_.collect();
    }

private:
    void embed(int64_t samples, Activations& observations, Activations& actions, bool relu) {
        const int64_t rows = sizes_.agents * samples;
        for (int64_t row = 0; row < rows; ++row)
            join(observations.row(row), actions.row(row), sizes_, pairs_.row(row));
        embed_.forward(0, pairs_.row(0), pairs_.width(), rows, embedded_.row(0), {embed_bias_.of(0), false, relu});
    }

    // The sum over agents of every sample.
    void total(int64_t samples, Activations& all, Activations& sums) const {
        float* sum = sums.row(0);
        std::copy_n(all.row(0), samples * all.width(), sum);
        for (int64_t agent = 1; agent < sizes_.agents; ++agent) {
            const float* one = all.row(agent * samples);
            VECTORISED for (int64_t i = 0; i < samples * all.width(); ++i) sum[i] += one[i];
        }
    }

    void take_mean(int64_t samples) {
        total(samples, embedded_, mean_);
        float* mean = mean_.row(0);
        VECTORISED for (int64_t i = 0; i < samples * mean_.width(); ++i) mean[i] /= float(sizes_.agents);
    }

    void repeat(int64_t samples, Activations& one, Activations& all) const {
        for (int64_t agent = 0; agent < sizes_.agents; ++agent)
            std::copy_n(one.row(0), samples * one.width(), all.row(agent * samples));
    }

    // What reached the mean goes back to all in equal parts; then the embedding's ReLU.
    void add_from_mean(int64_t samples) {
        const float* common = from_mean_.row(0);
        for (int64_t agent = 0; agent < sizes_.agents; ++agent) {
            const float* embedded = embedded_.row(agent * samples);
            float* back = back_.row(agent * samples);
            VECTORISED for (int64_t i = 0; i < samples * back_.width(); ++i)
                back[i] = embedded[i] > 0.0f ? back[i] + common[i] / float(sizes_.agents) : 0.0f;
        }
    }

    void by_mean(int64_t net, const float* gradients, int64_t samples) {
        hear_.learn(net, gradients, mean_.row(0), mean_.width(), samples);
        hear_.backward(net, gradients, samples, from_mean_.row(0), {nullptr, net > 0});
    }

    Sizes sizes_;
    Mlp embedding_;
    Rest rest_;
    Linear embed_, action_, listen_, hear_, both_;
    Biases embed_bias_;
    std::vector<float> both_weights_;
    Activations pairs_, embedded_, mean_, common_, heard_, from_mean_, back_, change_, exchanged_;
};

}  // namespace cfpos
