// Layers of perceptrons on rows of numbers: one row per vector, padded to whole vector registers.
//
// Rows that stay in the cache go through all layers before the next ones are fetched (see learner.cpp). Sixteen numbers
// of a row lie side by side, so weights are kept as [inputs, outputs] on the way forward, as they are on the way back,
// and a gradient is the product of two blocks of rows: nothing is ever transposed but the weights, once.
#pragma once

#include "lanes.hpp"

namespace cfpos {

#ifdef __AVX512F__
constexpr int MOST_VECTORS = 4;  // 6 x 4 sums, 4 operands and a factor fill 29 of 32 registers
#else
constexpr int MOST_VECTORS = 1;  // of two or four of the processor's own registers
#endif

INLINE int64_t whole_vectors(int64_t numbers) { return (numbers + LANES - 1) / LANES * LANES; }

// out = start + left right, then ReLU, then 0 where gate is not positive; start: 0, ``bias`` (one row) or ``out``.
struct RowProduct {
    const float* left;
    int64_t left_row, left_inner;
    const float* right;
    int64_t right_row;
    int64_t rows, inner, width;  // ``right``, ``out``, ``bias`` and ``gate`` have ``width`` numbers per row, in whole vectors
    float* out;
    int64_t out_row;
    const float* bias = nullptr;
    bool add = false, relu = false;
    const float* gate = nullptr;  // rows as far apart as those of ``out``
};

// Sums stay in registers only if no loop over them is left: each of these is unrolled, with its conditions outside.
#define EVERY_SUM                     \
    CFPOS_PRAGMA(GCC unroll 12)       \
    for (int r = 0; r < HEIGHT; ++r)  \
        CFPOS_PRAGMA(GCC unroll 4)    \
        for (int v = 0; v < VECTORS; ++v)

template <int HEIGHT, int VECTORS>
__attribute__((noinline)) void row_block(const RowProduct& product, int64_t row, int64_t column) {
    const int64_t left_row = product.left_row, left_inner = product.left_inner, right_row = product.right_row;
    const int64_t out_row = product.out_row;
    float* out = product.out + row * out_row + column;
    const Vector zero = {};
    Vector sums[HEIGHT][VECTORS];
    if (product.add)
        EVERY_SUM sums[r][v] = load(out + r * out_row + v * LANES);
    else if (product.bias)
        EVERY_SUM sums[r][v] = load(product.bias + column + v * LANES);
    else
        EVERY_SUM sums[r][v] = zero;
    const float* left = product.left + row * left_row;
    const float* right = product.right + column;
    for (int64_t k = 0; k < product.inner; ++k, left += left_inner, right += right_row) {
        Vector numbers[VECTORS];
        CFPOS_PRAGMA(GCC unroll 4)
        for (int v = 0; v < VECTORS; ++v) numbers[v] = load(right + v * LANES);
        CFPOS_PRAGMA(GCC unroll 12)
        for (int r = 0; r < HEIGHT; ++r) {
            const float factor = left[r * left_row];
            CFPOS_PRAGMA(GCC unroll 4)
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += factor * numbers[v];
        }
    }
    // Written so that what is not a number stays so.
    if (product.relu) EVERY_SUM sums[r][v] = sums[r][v] < zero ? zero : sums[r][v];
    if (product.gate) {
        const float* gate = product.gate + row * out_row + column;
        EVERY_SUM sums[r][v] = load(gate + r * out_row + v * LANES) > zero ? sums[r][v] : zero;
    }
    EVERY_SUM store(sums[r][v], out + r * out_row + v * LANES);
}

#undef EVERY_SUM

template <int VECTORS>
void row_blocks(const RowProduct& product, int64_t column) {
    constexpr int HEIGHT = VECTORS == 4 ? 6 : VECTORS == 3 ? 8 : 12;
    int64_t row = 0;
    for (; row + HEIGHT <= product.rows; row += HEIGHT) row_block<HEIGHT, VECTORS>(product, row, column);
    for (; row + 4 <= product.rows; row += 4) row_block<4, VECTORS>(product, row, column);
    for (; row < product.rows; ++row) row_block<1, VECTORS>(product, row, column);
}

inline void multiply(const RowProduct& product) {
    int64_t column = 0;
    if constexpr (MOST_VECTORS == 4) {
        for (; column + 4 * LANES <= product.width; column += 4 * LANES) row_blocks<4>(product, column);
        if (column + 3 * LANES <= product.width) row_blocks<3>(product, column), column += 3 * LANES;
        if (column + 2 * LANES <= product.width) row_blocks<2>(product, column), column += 2 * LANES;
    }
    for (; column < product.width; column += LANES) row_blocks<1>(product, column);
}

template <int COUNT>
INLINE void copy_fixed(const float* from, float* to) {
    float numbers[COUNT];
    std::memcpy(numbers, from, sizeof numbers);
    std::memcpy(to, numbers, sizeof numbers);
}

// A short vector, in pieces of which the last one may overlap the one before: a call of memcpy takes longer.
INLINE void copy(const float* from, int64_t count, float* to) {
    if (count >= LANES) {
        for (int64_t i = 0; i + LANES <= count; i += LANES) copy_fixed<LANES>(from + i, to + i);
        copy_fixed<LANES>(from + count - LANES, to + count - LANES);
    } else if (count >= LANES / 2) {
        copy_fixed<LANES / 2>(from, to);
        copy_fixed<LANES / 2>(from + count - LANES / 2, to + count - LANES / 2);
    } else
        for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// Zeros at the border of a cache line.
class Numbers {
public:
    Numbers() = default;
    explicit Numbers(int64_t count) : values_(size_t(count) + LANES, 0.0f) {
        const auto address = reinterpret_cast<uintptr_t>(values_.data());
        begin_ = values_.data() + (64 - address % 64) % 64 / sizeof(float);
    }
    Numbers(Numbers&&) = default;
    Numbers& operator=(Numbers&&) = default;

    float* at(int64_t place) { return begin_ + place; }
    const float* at(int64_t place) const { return begin_ + place; }

private:
    std::vector<float> values_;
    float* begin_ = nullptr;
};

// Rows that one tile of the batch has in a layer.
class Activations {
public:
    Activations() = default;
    Activations(int64_t rows, int64_t size) : width_(whole_vectors(size)), numbers_(rows * width_) {}

    float* row(int64_t index) { return numbers_.at(index * width_); }
    int64_t width() const { return width_; }

private:
    int64_t width_ = 0;
    Numbers numbers_;
};

// Tells a product where it starts and what follows it; see RowProduct.
struct Around {
    const float* bias = nullptr;
    bool add = false, relu = false;
    const float* gate = nullptr;
};

// Linear maps of ``count`` networks, each some columns of its weights [count, outputs, row], and their gradients.
class Linear {
public:
    Linear() = default;

    // Columns first + net * step to first + net * step + inputs belong to ``net``. ``weights`` are read again by
    // ``backward`` and have to stay.
    Linear(const float* weights, int64_t count, int64_t outputs, int64_t row, int64_t inputs, int64_t first = 0,
           int64_t step = 0)
        : weights_(weights), count_(count), outputs_(outputs), row_(row), inputs_(inputs), first_(first), step_(step) {}

    int64_t inputs() const { return inputs_; }

    void prepare_forward() {
        const int64_t width = whole_vectors(outputs_);
        forward_ = Numbers(count_ * inputs_ * width);
        for (int64_t net = 0; net < count_; ++net)
            for (int64_t begin = 0; begin < outputs_; begin += LANES) {  // whole lines are written
                const int64_t end = std::min<int64_t>(begin + LANES, outputs_);
                for (int64_t k = 0; k < inputs_; ++k) {
                    float* to = forward_.at((net * inputs_ + k) * width);
                    for (int64_t out = begin; out < end; ++out) to[out] = weight(net, out)[k];
                }
            }
    }

    void prepare_backward() {
        // Whole vectors are read where they lie; a row that ends within one is copied, so that none beyond it is read.
        if (inputs_ % LANES == 0) return;
        const int64_t width = whole_vectors(inputs_);
        backward_ = Numbers(count_ * outputs_ * width);
        for (int64_t net = 0; net < count_; ++net)
            for (int64_t out = 0; out < outputs_; ++out)
                std::copy_n(weight(net, out), inputs_, backward_.at((net * outputs_ + out) * width));
    }

    // ``whole``: gradient of all weights [count, outputs, row], to which this one is added as it grows if nobody else
    // does so (``alone``), else by ``collect``.
    void prepare_gradient(float* whole, bool alone) {
        whole_ = whole;
        direct_ = alone && inputs_ % LANES == 0;
        if (!direct_) gradient_ = Numbers(count_ * outputs_ * whole_vectors(inputs_));
    }

    // out [rows, outputs] from x [rows, inputs].
    void forward(int64_t net, const float* x, int64_t x_row, int64_t rows, float* out, Around around) const {
        const int64_t width = whole_vectors(outputs_);
        const float* panel = forward_.at(net * inputs_ * width);
        if (outputs_ == 1) return dots(panel, x, x_row, rows, out, around);
        multiply({x, x_row, 1, panel, width, rows, inputs_, width, out, width, around.bias, around.add, around.relu,
                  around.gate});
    }

    // out [rows, inputs] from gradients [rows, outputs].
    void backward(int64_t net, const float* gradients, int64_t rows, float* out, Around around) const {
        const int64_t width = whole_vectors(inputs_);
        const bool copied = inputs_ % LANES != 0;
        const float* panel = copied ? backward_.at(net * outputs_ * width) : weight(net, 0);
        multiply({gradients, whole_vectors(outputs_), 1, panel, copied ? width : row_, rows, outputs_, width, out, width,
                  around.bias, around.add, around.relu, around.gate});
    }

    // Add gradients^T x to the gradient.
    void learn(int64_t net, const float* gradients, const float* x, int64_t x_row, int64_t rows) {
        const int64_t width = whole_vectors(inputs_);
        float* out = direct_ ? whole_ + place(net, 0) : gradient_.at(net * outputs_ * width);
        multiply({gradients, 1, whole_vectors(outputs_), x, x_row, outputs_, rows, width, out, direct_ ? row_ : width,
                  nullptr, true});
    }

    void collect() const {
        if (direct_) return;
        const int64_t width = whole_vectors(inputs_);
        for (int64_t net = 0; net < count_; ++net)
            for (int64_t out = 0; out < outputs_; ++out) {
                const float* from = gradient_.at((net * outputs_ + out) * width);
                float* to = whole_ + place(net, out);
                VECTORISED for (int64_t k = 0; k < inputs_; ++k) to[k] += from[k];
            }
    }

private:
    int64_t place(int64_t net, int64_t out) const { return (net * outputs_ + out) * row_ + first_ + net * step_; }

    const float* weight(int64_t net, int64_t out) const { return weights_ + place(net, out); }

    // One output needs no register for fifteen others. ``panel`` has a row per input.
    void dots(const float* panel, const float* x, int64_t x_row, int64_t rows, float* out, Around around) const {
        float weights[MOST_DOT];
        for (int64_t start = 0; start < inputs_; start += MOST_DOT) {
            const int64_t some = std::min<int64_t>(inputs_ - start, MOST_DOT);
            for (int64_t k = 0; k < some; ++k) weights[k] = panel[(start + k) * LANES];
            for (int64_t row = 0; row < rows; ++row) {
                float dot = 0.0f;
                const float* numbers = x + row * x_row + start;
                VECTORISED_SUM(dot) for (int64_t k = 0; k < some; ++k) dot += weights[k] * numbers[k];
                float& result = out[row * LANES];
                if (start == 0) result = around.add ? result : around.bias ? *around.bias : 0.0f;
                result += dot;
            }
        }
        if (!around.relu && !around.gate) return;
        for (int64_t row = 0; row < rows; ++row) {
            float& result = out[row * LANES];
            if (around.relu && result < 0.0f) result = 0.0f;
            if (around.gate && !(around.gate[row * LANES] > 0.0f)) result = 0.0f;
        }
    }

    static constexpr int64_t MOST_DOT = 1024;
    const float* weights_ = nullptr;
    float* whole_ = nullptr;
    bool direct_ = false;
    int64_t count_ = 0, outputs_ = 0, row_ = 0, inputs_ = 0, first_ = 0, step_ = 0;
    Numbers forward_, backward_, gradient_;
};

// Biases [count, size] and their gradients.
class Biases {
public:
    Biases() = default;
    Biases(const float* biases, int64_t count, int64_t size)
        : count_(count), size_(size), values_(count * whole_vectors(size)), gradient_(count * whole_vectors(size)) {
        for (int64_t net = 0; net < count; ++net)
            std::copy_n(biases + net * size, size, values_.at(net * whole_vectors(size)));
    }

    const float* of(int64_t net) const { return values_.at(net * whole_vectors(size_)); }

    void learn(int64_t net, const float* gradients, int64_t rows) {
        const int64_t width = whole_vectors(size_);
        float* sums = gradient_.at(net * width);
        for (int64_t column = 0; column < width; column += LANES) {
            Vector first = load(sums + column), second = {};
            int64_t row = 0;
            for (; row + 2 <= rows; row += 2) {
                first += load(gradients + row * width + column);
                second += load(gradients + (row + 1) * width + column);
            }
            if (row < rows) first += load(gradients + row * width + column);
            store(first + second, sums + column);
        }
    }

    void collect(float* gradient) const {
        for (int64_t net = 0; net < count_; ++net)
            for (int64_t i = 0; i < size_; ++i) gradient[net * size_ + i] += gradient_.at(net * whole_vectors(size_))[i];
    }

private:
    int64_t count_ = 0, size_ = 0;
    Numbers values_, gradient_;
};

}  // namespace cfpos
