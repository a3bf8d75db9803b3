// A layer of a residual network over images [image, row, column, channel] with kernels of 3 x 3,
//     out = added + bias + W * silu(norm(x)),
// its sizes, and its kernels as frequencies.
#pragma once

#include <memory>

#include "gemm.hpp"

namespace cfpos {

template <class T>
struct Layer {
    int64_t images, rows, columns, inputs, outputs, stride;  // outputs: whole panels
    const T *x, *scale, *shift;  // scale, shift [inputs] of the normalisation, or null
    T* statistics;               // [images, 2]: mean and 1 / deviation, made by the way forward
    const T *weight, *bias;      // [outputs, inputs, 3, 3], [outputs]
    const T* added;              // as out, or null
    T* out;
};

template <class T>
struct Slopes {
    const T* out;
    T* x;                           // or null
    T *weight, *bias, *scale, *shift;
};

constexpr double EPSILON = 1e-5;

INLINE int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Numbers on whole cache lines.
template <class T>
class Memory {
public:
    explicit Memory(int64_t size) : kept_(new T[size + 64 / sizeof(T)]) {
        const auto address = reinterpret_cast<uintptr_t>(kept_.get());
        first_ = kept_.get() + (64 - address % 64) % 64 / sizeof(T);
        std::fill(first_, first_ + size, T(0));
    }
    T* get() const { return first_; }

private:
    std::unique_ptr<T[]> kept_;
    T* first_;
};

// Sizes that follow from those of a layer.
struct Sizes {
    int64_t inputs, outputs, tiles, width, pitch, out_rows, frequencies, taps;
    int64_t group, step_rows, in_panels, out_panels, in_panel, out_panel, in_each, out_each, space_rows;
    bool strided, aligned;

    template <class T>
    explicit Sizes(const Layer<T>& layer) {
        strided = layer.stride == 2;
        inputs = whole(layer.inputs, PANEL);
        outputs = layer.outputs;
        tiles = (layer.columns + OUT - 1) / OUT;
        width = tiles * OUT + 2;
        pitch = layer.rows + 1;
        out_rows = (layer.rows + layer.stride - 1) / layer.stride;
        frequencies = strided ? IN : IN * IN;
        taps = strided ? TAPS : 1;
        group = strided ? 1 : std::min(layer.images, std::max<int64_t>(1, 64 / pitch));
        aligned = layer.rows % OUT == 0;
        // A step: as many tiles as win back reading the kernels, so few that they stay in the cache.
        const int64_t most = inputs * outputs > 4096 ? 96 : 48;
        step_rows = std::min(std::max<int64_t>(1, most / tiles), strided ? out_rows : tile_rows(group, layer.rows));
        in_panels = inputs / PANEL;
        out_panels = outputs / PANEL;
        // An odd number of cache lines keeps panels apart in the cache.
        in_panel = ((strided ? 2 * step_rows + 1 : step_rows) * tiles | 1) * PANEL;
        out_panel = (step_rows * tiles | 1) * PANEL;
        in_each = in_panels * in_panel + (in_panels % 2 ? 0 : PANEL);
        out_each = out_panels * out_panel + (out_panels % 2 ? 0 : PANEL);
        space_rows = group * pitch + 1 + OUT + 2;
    }

    // Rows of tiles of so many images.
    int64_t tile_rows(int64_t images, int64_t rows) const {
        return aligned ? images * (rows / OUT) : (images * pitch - 1 + OUT - 1) / OUT;
    }
    // Row of the work space where a row of tiles begins.
    int64_t first_row(int64_t tile_row, int64_t rows) const {
        return aligned ? tile_row / (rows / OUT) * pitch + tile_row % (rows / OUT) * OUT : tile_row * OUT;
    }
};

// Kernels as frequencies: [frequency, tap, panel, channel of the other side, PANEL].
template <class T>
class Kernels {
public:
    Kernels(const Sizes& sizes, bool transposed)
        : transposed_(transposed), rows_(transposed ? sizes.outputs : sizes.inputs),
          panels_(transposed ? sizes.in_panels : sizes.out_panels), taps_(sizes.taps),
          size_(sizes.frequencies * taps_ * panels_ * rows_ * PANEL), numbers_(size_) {}

    T* at(int64_t frequency, int64_t tap, int64_t panel, int64_t row = 0) const {
        return numbers_.get() + (((frequency * taps_ + tap) * panels_ + panel) * rows_ + row) * PANEL;
    }
    int64_t panels() const { return panels_; }
    void add(const Kernels& other) {
        T *to = numbers_.get(), *from = other.numbers_.get();
        VECTORISED for (int64_t i = 0; i < size_; ++i) to[i] += from[i];
    }

    // From weights [outputs, inputs, 3, 3].
    void read(const Layer<T>& layer) {
        each([&](int64_t panel, int64_t row, int64_t part) {
            Side<T> g[TAPS][TAPS] = {}, wide[TAPS][IN];
            for (int lane = 0; lane < SIDE; ++lane)
                if (const T* weight = find(layer, layer.weight, panel, row, part + lane))
                    for (int tap = 0; tap < TAPS * TAPS; ++tap) g[tap / TAPS][tap % TAPS][lane] = weight[tap];
            for (int tap = 0; tap < TAPS; ++tap) from_taps(g[tap], wide[tap]);
            for (int f = 0; f < IN; ++f) {
                const Side<T> along[TAPS] = {wide[0][f], wide[1][f], wide[2][f]};
                Side<T> made[IN];
                from_taps(along, made);
                for (int tap = 0; tap < TAPS && taps_ > 1; ++tap) put<T>(along[tap], at(f, tap, panel, row) + part);
                for (int h = 0; h < IN && taps_ == 1; ++h) put<T>(made[h], at(h * IN + f, 0, panel, row) + part);
            }
        });
    }

    // The transpose of ``read``, into ``slopes``.
    void write(const Layer<T>& layer, T* slopes) const {
        each([&](int64_t panel, int64_t row, int64_t part) {
            Side<T> along[TAPS][IN], g[TAPS] = {};
            for (int f = 0; f < IN; ++f) {
                Side<T> rows[IN] = {};
                for (int tap = 0; tap < TAPS && taps_ > 1; ++tap) g[tap] = side(at(f, tap, panel, row) + part);
                for (int h = 0; h < IN && taps_ == 1; ++h) rows[h] = side(at(h * IN + f, 0, panel, row) + part);
                if (taps_ == 1) to_taps(rows, g);
                for (int tap = 0; tap < TAPS; ++tap) along[tap][f] = g[tap];
            }
            for (int tap = 0; tap < TAPS; ++tap) {
                to_taps(along[tap], g);
                for (int lane = 0; lane < SIDE; ++lane)
                    if (T* weight = const_cast<T*>(find(layer, slopes, panel, row, part + lane)))
                        for (int other = 0; other < TAPS; ++other) weight[tap * TAPS + other] = g[other][lane];
            }
        });
    }

private:
    bool transposed_;
    int64_t rows_, panels_, taps_, size_;
    Memory<T> numbers_;

    template <class Work>
    void each(const Work& work) const {
        for (int64_t panel = 0; panel < panels_; ++panel)
            for (int64_t row = 0; row < rows_; ++row)
                for (int64_t part = 0; part < PANEL; part += SIDE) work(panel, row, part);
    }

    // Taps from one input to one output; null beyond the channels of the layer.
    const T* find(const Layer<T>& layer, const T* weights, int64_t panel, int64_t row, int64_t lane) const {
        const int64_t column = panel * PANEL + lane, input = transposed_ ? column : row, output = transposed_ ? row : column;
        return input < layer.inputs ? weights + (output * layer.inputs + input) * TAPS * TAPS : nullptr;
    }
};

}  // namespace cfpos
