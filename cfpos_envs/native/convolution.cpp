// Layers of a residual network (convolution.hpp), there and back. Normalisation (over all of an image) with SiLU and the
// addition may be missing. Rows and columns are padded with one zero. Stride 1: minimal filtering in rows and columns.
// Stride 2 along the rows: minimal filtering in columns. Images lie in a work space one above another with one empty row
// between them, so that tiles of four rows waste little.

#include "convolution.hpp"

namespace cfpos {

// Some images of a layer, a group at a time.
template <class T>
class Pass {
public:
    Pass(const Layer<T>& layer, const Sizes& sizes, bool back)
        : layer_(layer), sizes_(sizes), space_(space_size()), slopes_(back ? space_size() : 0),
          gate_(back && layer.scale ? sizes.group * image_size() : 0), in_(sizes.frequencies * sizes.in_each),
          out_(sizes.frequencies * sizes.out_each), rates_(2 * sizes.inputs) {}

    void forward(int64_t first, int64_t last, const Kernels<T>& kernels) {
        for (int64_t image = first; image < last; image += sizes_.group) {
            const int64_t count = std::min(sizes_.group, last - image), rows = total_rows(count);
            for (int64_t each = 0; each < count; ++each) {
                if (layer_.scale) measure(image + each);
                enter<false>(image + each, each);
            }
            for (int64_t row = 0; row < rows; row += sizes_.step_rows) {
                const int64_t these = std::min(sizes_.step_rows, rows - row);
                to_inputs(row, these);
                for (int64_t f = 0; f < sizes_.frequencies; ++f) products(f, these, kernels);
                from_outputs_to(image, count, row, these);
            }
        }
    }

    // Adds to the slopes of kernels, of biases [outputs], of scales and shifts [inputs].
    void backward(int64_t first, int64_t last, const Kernels<T>& transposed, const Slopes<T>& slopes,
                  const Kernels<T>& kernel_slopes, T* bias, T* scale, T* shift) {
        for (int64_t image = first; image < last; image += sizes_.group) {
            const int64_t count = std::min(sizes_.group, last - image), rows = total_rows(count);
            for (int64_t each = 0; each < count; ++each) enter<true>(image + each, each);
            if (slopes.x) std::fill_n(slopes_.get(), space_size(), T(0));
            for (int64_t row = 0; row < rows; row += sizes_.step_rows) {
                const int64_t these = std::min(sizes_.step_rows, rows - row);
                to_inputs(row, these);
                to_outputs_from(slopes.out, image, count, row, these, bias);
                for (int64_t f = 0; f < sizes_.frequencies; ++f) {
                    kernel_products(f, these, kernel_slopes);
                    if (slopes.x) slope_products(f, these, transposed);
                }
                if (slopes.x) from_inputs(row, these);
            }
            for (int64_t each = 0; slopes.x && each < count; ++each) leave(image + each, each, slopes.x, scale, shift);
        }
    }

private:
    const Layer<T>& layer_;
    const Sizes& sizes_;
    // Padded images and slopes; derivatives of SiLU; tiles of inputs and outputs as frequencies [frequency, panel, row of
    // tiles, tile, PANEL].
    Memory<T> space_, slopes_, gate_, in_, out_, rates_;

    int64_t total_rows(int64_t images) const {
        return sizes_.strided ? sizes_.out_rows : sizes_.tile_rows(images, layer_.rows);
    }
    int64_t image_size() const { return layer_.rows * layer_.columns * layer_.inputs; }
    int64_t space_size() const { return sizes_.space_rows * sizes_.width * sizes_.inputs; }
    T* place(const Memory<T>& space, int64_t row, int64_t column) const {
        return space.get() + (row * sizes_.width + column) * sizes_.inputs;
    }

    void measure(int64_t image) {
        const T* x = layer_.x + image * image_size();
        const int64_t row_size = layer_.columns * layer_.inputs;
        double sum = 0, squares = 0;
        for (int64_t row = 0; row < layer_.rows; ++row) {
            T added = 0;
            VECTORISED_SUM(added) for (int64_t i = 0; i < row_size; ++i) added += x[row * row_size + i];
            sum += added;
        }
        const T mean = T(sum / image_size());
        for (int64_t row = 0; row < layer_.rows; ++row) {
            T added = 0;
            VECTORISED_SUM(added) for (int64_t i = 0; i < row_size; ++i) added += square_of(x[row * row_size + i] - mean);
            squares += added;
        }
        layer_.statistics[2 * image] = mean;
        layer_.statistics[2 * image + 1] = T(1 / std::sqrt(squares / image_size() + EPSILON));
    }

    static INLINE T square_of(T x) { return x * x; }
    static INLINE float fall(float x) { return exp_of(-x); }
    static INLINE double fall(double x) { return std::exp(-x); }

    // Copies an image into the work space, normalised and through SiLU where that is asked for; ``BACK``: notes the
    // derivatives of that too.
    template <bool BACK>
    void enter(int64_t image, int64_t each) {
        const int64_t inputs = layer_.inputs;
        const T* x = layer_.x + image * image_size();
        T *__restrict rate = rates_.get(), *__restrict base = rate + sizes_.inputs;
        if (layer_.scale)
            for (int64_t c = 0; c < inputs; ++c) {
                rate[c] = layer_.statistics[2 * image + 1] * layer_.scale[c];
                base[c] = layer_.shift[c];
            }
        const T mean = layer_.scale ? layer_.statistics[2 * image] : T(0);
        T* __restrict gate = BACK ? gate_.get() + each * image_size() : nullptr;
        for (int64_t row = 0; row < layer_.rows; ++row)
            for (int64_t column = 0; column < layer_.columns; ++column, x += inputs, gate += inputs) {
                T* __restrict to = place(space_, each * sizes_.pitch + row + 1, column + 1);
                if (!layer_.scale) {
                    std::copy_n(x, inputs, to);
                    continue;
                }
                VECTORISED for (int64_t c = 0; c < inputs; ++c) {
                    const T y = (x[c] - mean) * rate[c] + base[c], share = 1 / (1 + fall(y));
                    to[c] = y * share;
                    if (BACK) gate[c] = share * (1 + y * (1 - share));
                }
            }
    }

    // Slopes of an image from those in the work space.
    void leave(int64_t image, int64_t each, T* slopes, T* scale, T* shift) {
        const int64_t inputs = layer_.inputs, pixels = layer_.rows * layer_.columns;
        const T* x = layer_.x + image * image_size();
        T* __restrict to = slopes + image * image_size();
        if (!layer_.scale) {
            for (int64_t pixel = 0; pixel < pixels; ++pixel) std::copy_n(slope(each, pixel), inputs, to + pixel * inputs);
            return;
        }
        const T mean = layer_.statistics[2 * image], rate = layer_.statistics[2 * image + 1];
        const T* __restrict gate = gate_.get() + each * image_size();
        T *__restrict sums = rates_.get(), *__restrict products = sums + sizes_.inputs;
        std::fill_n(sums, 2 * sizes_.inputs, T(0));
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            T* __restrict inner = slope(each, pixel);
            VECTORISED for (int64_t c = 0; c < inputs; ++c) {
                inner[c] *= gate[pixel * inputs + c];
                sums[c] += inner[c];
                products[c] += inner[c] * (x[pixel * inputs + c] - mean);
            }
        }
        double total = 0, along = 0;
        for (int64_t c = 0; c < inputs; ++c) {
            shift[c] += sums[c];
            scale[c] += products[c] * rate;
            total += sums[c] * layer_.scale[c];
            along += products[c] * layer_.scale[c];
            sums[c] = rate * layer_.scale[c];
        }
        const T average = T(rate * total / image_size()), tilt = T(rate * rate * rate * along / image_size());
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const T* inner = slope(each, pixel);
            VECTORISED for (int64_t c = 0; c < inputs; ++c) {
                const int64_t i = pixel * inputs + c;
                to[i] = inner[c] * sums[c] - average - (x[i] - mean) * tilt;
            }
        }
    }

    T* slope(int64_t each, int64_t pixel) const {
        return place(slopes_, each * sizes_.pitch + pixel / layer_.columns + 1, pixel % layer_.columns + 1);
    }

    // visit(place in the work space, place among the frequencies) for SIDE channels of every tile of some rows.
    template <class Visit>
    INLINE void each_input(const Memory<T>& space, int64_t first, int64_t rows, const Visit& visit) {
        const int64_t count = sizes_.strided ? 2 * rows + 1 : rows;
        for (int64_t panel = 0; panel < sizes_.in_panels; ++panel)
            for (int64_t row = 0; row < count; ++row) {
                const int64_t top = sizes_.strided ? 2 * first + row : sizes_.first_row(first + row, layer_.rows);
                for (int64_t tile = 0; tile < sizes_.tiles; ++tile)
                    for (int64_t part = 0; part < PANEL; part += SIDE)
                        visit(place(space, top, tile * OUT) + panel * PANEL + part,
                              in_.get() + panel * sizes_.in_panel + (row * sizes_.tiles + tile) * PANEL + part);
            }
    }

    void to_inputs(int64_t first, int64_t rows) {
        const int64_t right = sizes_.inputs, down = right * sizes_.width, next = sizes_.in_each;
        if (sizes_.strided)
            return each_input(space_, first, rows, [=](const T* from, T* to) {
                Side<T> d[IN], f[IN];
                for (int j = 0; j < IN; ++j) d[j] = side(from + j * right);
                to_frequencies(d, f);
                for (int j = 0; j < IN; ++j) put<T>(f[j], to + j * next);
            });
        each_input(space_, first, rows, [=](const T* from, T* to) {
            Side<T> half[IN][IN], d[IN], f[IN];
            for (int j = 0; j < IN; ++j) {
                for (int i = 0; i < IN; ++i) d[i] = side(from + i * down + j * right);
                to_frequencies(d, f);
                for (int i = 0; i < IN; ++i) half[i][j] = f[i];
            }
            for (int i = 0; i < IN; ++i) {
                to_frequencies(half[i], f);
                for (int j = 0; j < IN; ++j) put<T>(f[j], to + (i * IN + j) * next);
            }
        });
    }

    // The transpose of ``to_inputs``, added to the slopes in the work space.
    void from_inputs(int64_t first, int64_t rows) {
        const int64_t right = sizes_.inputs, down = right * sizes_.width, next = sizes_.in_each;
        if (sizes_.strided)
            return each_input(slopes_, first, rows, [=](T* to, const T* from) {
                Side<T> f[IN], d[IN];
                for (int j = 0; j < IN; ++j) f[j] = side(from + j * next);
                from_frequencies(f, d);
                for (int j = 0; j < IN; ++j) put<T>(side(to + j * right) + d[j], to + j * right);
            });
        each_input(slopes_, first, rows, [=](T* to, const T* from) {
            Side<T> half[IN][IN], f[IN], d[IN];
            for (int i = 0; i < IN; ++i) {
                for (int j = 0; j < IN; ++j) f[j] = side(from + (i * IN + j) * next);
                from_frequencies(f, half[i]);
            }
            for (int j = 0; j < IN; ++j) {
                for (int i = 0; i < IN; ++i) f[i] = half[i][j];
                from_frequencies(f, d);
                for (int i = 0; i < IN; ++i) put<T>(side(to + i * down + j * right) + d[i], to + i * down + j * right);
            }
        });
    }

    T* in_at(int64_t f, int64_t panel, int64_t row = 0) const {
        return in_.get() + f * sizes_.in_each + panel * sizes_.in_panel + row * sizes_.tiles * PANEL;
    }
    T* out_at(int64_t f, int64_t panel, int64_t row = 0) const {
        return out_.get() + f * sizes_.out_each + panel * sizes_.out_panel + row * sizes_.tiles * PANEL;
    }

    // Outputs of one frequency. With stride 2 a row of outputs takes three rows of inputs, one for each tap.
    void products(int64_t f, int64_t rows, const Kernels<T>& kernels) {
        const int64_t line = sizes_.tiles * PANEL, each = sizes_.strided ? 1 : rows;
        for (int64_t panel = 0; panel < sizes_.out_panels; ++panel)
            for (int64_t row = 0; row < rows; row += each) {
                const Factors<T> factors = {in_at(f, 0, 2 * row), kernels.at(f, 0, panel), sizes_.in_panel, PANEL * PANEL,
                                            sizes_.in_panels, PANEL, line, kernels.at(f, 1, 0) - kernels.at(f, 0, 0), sizes_.taps};
                multiply<T, Left::ROWS, false>(factors, each * sizes_.tiles, out_at(f, panel, row));
            }
    }

    // Slopes of the kernels of one frequency.
    void kernel_products(int64_t f, int64_t rows, const Kernels<T>& slopes) {
        const int64_t step = sizes_.tiles * PANEL;
        for (int64_t tap = 0; tap < sizes_.taps; ++tap)
            for (int64_t out = 0; out < sizes_.out_panels; ++out)
                for (int64_t in = 0; in < sizes_.in_panels; ++in) {
                    const bool strided = sizes_.strided;
                    const Factors<T> factors = {in_at(f, in, tap), out_at(f, out), strided ? 2 * step : 0, step,
                                                strided ? rows : 1, (strided ? 1 : rows) * sizes_.tiles};
                    multiply<T, Left::COLUMNS, true>(factors, PANEL, slopes.at(f, tap, out, in * PANEL));
                }
    }

    // Slopes of the inputs of one frequency, written over the inputs.
    void slope_products(int64_t f, int64_t rows, const Kernels<T>& transposed) {
        for (int64_t panel = 0; panel < sizes_.in_panels; ++panel) {
            if (sizes_.strided) std::fill_n(in_at(f, panel), (2 * rows + 1) * sizes_.tiles * PANEL, T(0));
            for (int64_t tap = 0; tap < sizes_.taps; ++tap) {
                Factors<T> factors = {out_at(f, 0), transposed.at(f, tap, panel), sizes_.out_panel, PANEL * PANEL, sizes_.out_panels, PANEL};
                if (!sizes_.strided) {
                    multiply<T, Left::ROWS, false>(factors, rows * sizes_.tiles, in_at(f, panel));
                    continue;
                }
                for (int64_t row = 0; row < rows; ++row) {
                    factors.left = out_at(f, 0, row);
                    multiply<T, Left::ROWS, true>(factors, sizes_.tiles, in_at(f, panel, 2 * row + tap));
                }
            }
        }
    }

    // First number of row ``y`` of the outputs of a group, or -1 where that lies between two images.
    int64_t out_index(int64_t image, int64_t count, int64_t y) const {
        const int64_t pitch = sizes_.strided ? sizes_.out_rows + 1 : sizes_.pitch, each = y / pitch, row = y % pitch;
        if (each >= count || row >= sizes_.out_rows) return -1;
        return ((image + each) * sizes_.out_rows + row) * layer_.columns * sizes_.outputs;
    }

    // visit(where each row of a tile of outputs begins or -1, columns that exist, channel, place among the frequencies).
    template <class Visit>
    INLINE void each_output(int64_t image, int64_t count, int64_t first, int64_t rows, const Visit& visit) {
        for (int64_t row = 0; row < rows; ++row) {
            const int64_t top = sizes_.strided ? first + row : sizes_.first_row(first + row, layer_.rows);
            int64_t starts[OUT];
            for (int i = 0; i < OUT; ++i) starts[i] = out_index(image, count, top + i);
            for (int64_t panel = 0; panel < sizes_.out_panels; ++panel)
                for (int64_t tile = 0; tile < sizes_.tiles; ++tile) {
                    int64_t at[OUT];
                    for (int i = 0; i < OUT; ++i) at[i] = starts[i] < 0 ? -1 : starts[i] + tile * OUT * sizes_.outputs;
                    const int width = int(std::min<int64_t>(OUT, layer_.columns - tile * OUT));
                    for (int64_t part = 0; part < PANEL; part += SIDE)
                        visit(at, width, panel * PANEL + part,
                              out_.get() + panel * sizes_.out_panel + (row * sizes_.tiles + tile) * PANEL + part);
                }
        }
    }

    void from_outputs_to(int64_t image, int64_t count, int64_t first, int64_t rows) {
        const int64_t next = sizes_.out_each, right = sizes_.outputs;
        const bool strided = sizes_.strided;
        const Layer<T>& layer = layer_;
        each_output(image, count, first, rows, [=, &layer](const int64_t (&at)[OUT], int width, int64_t c, const T* from) {
            Side<T> m[IN], y[OUT], half[OUT][IN];
            for (int j = 0; j < IN && strided; ++j) half[0][j] = side(from + j * next);
            for (int j = 0; j < IN && !strided; ++j) {
                for (int i = 0; i < IN; ++i) m[i] = side(from + (i * IN + j) * next);
                to_outputs(m, y);
                for (int i = 0; i < OUT; ++i) half[i][j] = y[i];
            }
            const Side<T> bias = side(layer.bias + c);
            for (int i = 0; i < (strided ? 1 : OUT); ++i) {
                if (at[i] < 0) continue;
                to_outputs(half[i], y);
                for (int j = 0; j < width; ++j) {
                    const int64_t to = at[i] + j * right + c;
                    put<T>(layer.added ? y[j] + bias + side(layer.added + to) : y[j] + bias, layer.out + to);
                }
            }
        });
    }

    // The transpose of ``from_outputs_to``.
    void to_outputs_from(const T* slopes, int64_t image, int64_t count, int64_t first, int64_t rows, T* bias) {
        const int64_t next = sizes_.out_each, right = sizes_.outputs;
        const bool strided = sizes_.strided;
        each_output(image, count, first, rows, [=](const int64_t (&at)[OUT], int width, int64_t c, T* to) {
            Side<T> y[OUT], m[IN], half[OUT][IN], sum = side(bias + c);
            for (int i = 0; i < (strided ? 1 : OUT); ++i) {
                for (int j = 0; j < OUT; ++j) {
                    y[j] = at[i] >= 0 && j < width ? side(slopes + at[i] + j * right + c) : Side<T>{};
                    sum += y[j];
                }
                from_outputs(y, half[i]);
            }
            put<T>(sum, bias + c);
            for (int j = 0; j < IN && strided; ++j) put<T>(half[0][j], to + j * next);
            for (int j = 0; j < IN && !strided; ++j) {
                for (int i = 0; i < OUT; ++i) y[i] = half[i][j];
                from_outputs(y, m);
                for (int i = 0; i < IN; ++i) put<T>(m[i], to + (i * IN + j) * next);
            }
        });
    }
};

template <class T>
void forward(const Layer<T>& layer, int threads) {
    const Sizes sizes(layer);
    Kernels<T> kernels(sizes, false);
    kernels.read(layer);
    for_parts(layer.images, threads, 1, [&](int64_t first, int64_t last) {
        Pass<T>(layer, sizes, false).forward(first, last, kernels);
    });
}

// What one thread adds up.
template <class T>
struct Sums {
    explicit Sums(const Sizes& sizes) : kernels(sizes, false), bias(sizes.outputs), scale(sizes.inputs), shift(sizes.inputs) {}

    Kernels<T> kernels;
    Memory<T> bias, scale, shift;
};

template <class T>
void add(const Memory<T>& more, int64_t size, T* to) {
    for (int64_t i = 0; i < size; ++i) to[i] += more.get()[i];
}

template <class T>
void backward(const Layer<T>& layer, const Slopes<T>& slopes, int threads) {
    const Sizes sizes(layer);
    Kernels<T> transposed(sizes, true);
    transposed.read(layer);
    const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, layer.images));
    std::vector<std::unique_ptr<Sums<T>>> sums;
    for (int64_t part = 0; part < parts; ++part) sums.push_back(std::make_unique<Sums<T>>(sizes));
    for_parts(parts, int(parts), 1, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
            const Sums<T>& own = *sums[part];
            Pass<T>(layer, sizes, true)
                .backward(layer.images * part / parts, layer.images * (part + 1) / parts, transposed, slopes, own.kernels,
                          own.bias.get(), own.scale.get(), own.shift.get());
        }
    });
    Sums<T>& total = *sums[0];
    for (int64_t part = 1; part < parts; ++part) {
        total.kernels.add(sums[part]->kernels);
        add(sums[part]->bias, layer.outputs, total.bias.get());
        add(sums[part]->scale, layer.inputs, total.scale.get());
        add(sums[part]->shift, layer.inputs, total.shift.get());
    }
    total.kernels.write(layer, slopes.weight);
    std::copy_n(total.bias.get(), layer.outputs, slopes.bias);
    if (!layer.scale) return;
    std::copy_n(total.scale.get(), layer.inputs, slopes.scale);
    std::copy_n(total.shift.get(), layer.inputs, slopes.shift);
}

}  // namespace cfpos

extern "C" {

void cfpos_layer_float(const cfpos::Layer<float>* layer, int threads) { cfpos::forward(*layer, threads); }
void cfpos_layer_double(const cfpos::Layer<double>* layer, int threads) { cfpos::forward(*layer, threads); }

void cfpos_layer_back_float(const cfpos::Layer<float>* layer, const cfpos::Slopes<float>* slopes, int threads) {
    cfpos::backward(*layer, *slopes, threads);
}
void cfpos_layer_back_double(const cfpos::Layer<double>* layer, const cfpos::Slopes<double>* slopes, int threads) {
    cfpos::backward(*layer, *slopes, threads);
}

}  // extern "C"
