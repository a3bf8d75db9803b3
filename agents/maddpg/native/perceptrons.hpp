// Networks of all agents on tiles of a batch, forward and backward.
//
// A tile has the vectors of all agents for some samples, agent after agent: row agent * samples + sample.
#pragma once

#include "layers.hpp"

namespace cfpos {

// ``BatchedMlp`` of agents/maddpg/networks.py; like all structures that Python fills, in the order of agents/maddpg/compiled.py.
struct Mlp {
    int64_t count, layers;
    const int64_t* sizes;              // layers + 1
    const float* const* parameters;    // weights [count, outputs, inputs], biases [count, outputs], layer by layer
    float* const* gradients;           // likewise, or null
};

// What a network is for; ``learning_alone``: nobody else adds to its gradients meanwhile.
enum class Use { values, own_action, learning, learning_alone };

INLINE bool learns(Use use) { return use == Use::learning || use == Use::learning_alone; }

// What lies behind the first layer, whose products are the owner's affair.
class Rest {
public:
    Rest(const Mlp& mlp, int64_t agents, int64_t samples, Use use) : mlp_(mlp), agents_(agents) {
        for (int64_t layer = 0; layer < mlp.layers; ++layer) {
            const int64_t inputs = mlp.sizes[layer], outputs = mlp.sizes[layer + 1];
            biases_.emplace_back(mlp.parameters[2 * layer + 1], mlp.count, outputs);
            given_.emplace_back(agents * samples, outputs);
            if (use != Use::values) gradients_.emplace_back(agents * samples, outputs);
            linear_.emplace_back(mlp.parameters[2 * layer], mlp.count, outputs, inputs, inputs);
            if (layer == 0) continue;
            linear_.back().prepare_forward();
            if (use != Use::values) linear_.back().prepare_backward();
            if (learns(use)) linear_.back().prepare_gradient(mlp.gradients[2 * layer], use == Use::learning_alone);
        }
    }

    // work(net, first row, rows) for every network on its rows.
    template <class Work>
    void for_nets(int64_t samples, const Work& work) const {
        if (mlp_.count == 1) return work(0, 0, agents_ * samples);
        for (int64_t net = 0; net < mlp_.count; ++net) work(net, net * samples, samples);
    }

    bool gated() const { return mlp_.layers > 1; }  // whether a ReLU follows the first layer
    bool separate() const { return mlp_.count > 1; }
    const float* bias(int64_t net) const { return biases_.front().of(net); }
    Activations& first() { return given_.front(); }
    Activations& outputs() { return given_.back(); }
    Activations& gradients() { return gradients_.back(); }
    Activations& first_gradients() { return gradients_.front(); }

    // All layers behind the first one, for some rows of one network.
    void finish(int64_t net, int64_t row, int64_t rows) {
        for (int64_t layer = 1; layer < mlp_.layers; ++layer) {
            Activations& from = given_[layer - 1];
            const Around around = {biases_[layer].of(net), false, layer + 1 < mlp_.layers};
            linear_[layer].forward(net, from.row(row), from.width(), rows, given_[layer].row(row), around);
        }
    }

    // From ``gradients`` to ``first_gradients``; with ``learn`` the gradients of all but the first layer's weights.
    void backward(int64_t net, int64_t row, int64_t rows, bool learn) {
        for (int64_t layer = mlp_.layers - 1; layer >= 0; --layer) {
            const float* gradients = gradients_[layer].row(row);
            if (learn) biases_[layer].learn(net, gradients, rows);
            if (layer == 0) return;
            Activations& hidden = given_[layer - 1];
            if (learn) linear_[layer].learn(net, gradients, hidden.row(row), hidden.width(), rows);
            linear_[layer].backward(net, gradients, rows, gradients_[layer - 1].row(row),
                                    {nullptr, false, false, hidden.row(row)});
        }
    }

    void collect() const {
        for (int64_t layer = 0; layer < mlp_.layers; ++layer) {
            if (layer > 0) linear_[layer].collect();
            biases_[layer].collect(mlp_.gradients[2 * layer + 1]);
        }
    }

private:
    Mlp mlp_;
    int64_t agents_;
    std::vector<Linear> linear_;  // the first one is not used
    std::vector<Biases> biases_;
    std::vector<Activations> given_, gradients_;
};

// A whole ``BatchedMlp`` on rows of inputs.
class Perceptron {
public:
    Perceptron(const Mlp& mlp, int64_t agents, int64_t samples, Use use)
        : rest(mlp, agents, samples, use),
          first_(mlp.parameters[0], mlp.count, mlp.sizes[1], mlp.sizes[0], mlp.sizes[0]) {
        first_.prepare_forward();
        if (learns(use)) first_.prepare_gradient(mlp.gradients[0], use == Use::learning_alone);
    }

    void values(int64_t samples, Activations& inputs) {
        rest.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            first_.forward(net, inputs.row(row), inputs.width(), rows, rest.first().row(row),
                           {rest.bias(net), false, rest.gated()});
            rest.finish(net, row, rows);
        });
    }

    void learn(int64_t samples, Activations& inputs) {
        rest.for_nets(samples, [&](int64_t net, int64_t row, int64_t rows) {
            rest.backward(net, row, rows, true);
            first_.learn(net, rest.first_gradients().row(row), inputs.row(row), inputs.width(), rows);
        });
    }

    void collect() const {
        first_.collect();
        rest.collect();
    }

    Rest rest;

private:
    Linear first_;
};

}  // namespace cfpos
