// Products of many small matrices for the trainer, with what follows each of them done while it is in registers.
//
// torch's BLAS (MKL) uses AVX2 alone on processors that are not Intel's. Blocks of the result stay in registers; on
// processors without AVX-512 there are too few of them and torch keeps the work (see cfpos_products_are_faster).

#include <limits>

#include "lanes.hpp"

namespace cfpos {

constexpr int ROWS = 6, VECTORS = 4, COLUMNS = VECTORS * LANES;  // 24 of 32 registers hold a block of the result
constexpr int INNER = 256;                                       // so many rows of a panel stay in the cache

// out[c] = left[c] right[c], then + bias, then ReLU; the fields are those of
// ``_Product`` in agents/maddpg/compiled_products.py, in its order. Strides in numbers.
struct Product {
    int64_t count, rows, inner, columns;
    const float* left;
    int64_t left_each, left_row, left_inner;
    const float* right;
    int64_t right_each, right_inner, right_column;
    const float* bias;                // [count, rows] or null
    int64_t relu;
    float* out;                       // [count, rows, columns]
};

// What comes after the product of one row.
INLINE void finish(const Product& product, int64_t row, int width, float* out) {
    if (!product.bias && !product.relu) return;
    const float bias = product.bias ? product.bias[row] : 0.0f;
    const float floor = product.relu ? 0.0f : -std::numeric_limits<float>::infinity();
    // Written so that what is not a number stays so.
    VECTORISED for (int i = 0; i < width; ++i) out[i] = out[i] + bias < floor ? floor : out[i] + bias;
}

// One block of at most ROWS x COLUMNS; ``panel`` holds rows ``first`` to ``last`` of its columns of ``right`` densely.
template <int HEIGHT>
void block(const Product& product, int64_t each, int64_t row, int64_t column, int64_t first, int64_t last,
           const float* panel) {
    Vector sums[HEIGHT][VECTORS] = {};
    const float* left = product.left + each * product.left_each + row * product.left_row;
    for (int64_t k = first; k < last; ++k) {
        Vector right[VECTORS];
        for (int v = 0; v < VECTORS; ++v) right[v] = load(panel + (k - first) * COLUMNS + v * LANES);
        for (int r = 0; r < HEIGHT; ++r) {
            const float factor = left[r * product.left_row + k * product.left_inner];
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += factor * right[v];
        }
    }
    const int width = int(std::min<int64_t>(COLUMNS, product.columns - column));
    for (int r = 0; r < HEIGHT; ++r) {
        float values[COLUMNS];
        std::memcpy(values, sums[r], sizeof values);
        const int64_t place = each * product.rows + row + r;
        float* out = product.out + place * product.columns + column;
        if (first == 0)
            std::copy(values, values + width, out);
        else
            VECTORISED for (int i = 0; i < width; ++i) out[i] += values[i];
        if (last == product.inner) finish(product, place, width, out);
    }
}

// Rows first to last of one panel of ``right``, as the blocks read them.
void pack(const Product& product, const float* right, int64_t first, int64_t last, int width, float* panel) {
    if (product.right_column == 1) {
        for (int64_t k = first; k < last; ++k) {
            const float* row = right + k * product.right_inner;
            std::copy(row, row + width, panel + (k - first) * COLUMNS);
        }
        return;
    }
    for (int64_t start = first; start < last; start += LANES)
        for (int i = 0; i < width; ++i)
            for (int64_t k = start; k < std::min(start + LANES, last); ++k)
                panel[(k - first) * COLUMNS + i] = right[k * product.right_inner + i * product.right_column];
}

void multiply(const Product& product, int64_t begin, int64_t end) {
    std::vector<float> panel(size_t(std::min<int64_t>(product.inner, INNER)) * COLUMNS);
    for (int64_t each = begin; each < end; ++each) {
        for (int64_t column = 0; column < product.columns; column += COLUMNS)
            for (int64_t first = 0; first < product.inner; first += INNER) {
                const int width = int(std::min<int64_t>(COLUMNS, product.columns - column));
                const int64_t last = std::min(first + INNER, product.inner);
                const float* right = product.right + each * product.right_each + column * product.right_column;
                pack(product, right, first, last, width, panel.data());
                int64_t row = 0;
                for (; row + ROWS <= product.rows; row += ROWS)
                    block<ROWS>(product, each, row, column, first, last, panel.data());
                for (; row + 2 <= product.rows; row += 2)
                    block<2>(product, each, row, column, first, last, panel.data());
                if (row < product.rows) block<1>(product, each, row, column, first, last, panel.data());
            }
    }
}

// Gradients of ``count`` networks, part by part (weights and biases of every layer): [count, sizes[part]] each.
struct Clipped {
    int64_t count, parts;
    float* const* gradients;
    const int64_t* sizes;
    float max_norm, norm_floor;  // max_norm = 0: nothing is scaled
    float* norms;                // [count] before scaling
};

// Norm of every network's gradient, which is scaled to at most max_norm; those within it are not touched.
void clip(const Clipped& task) {
    constexpr int64_t some = 1024;
    for (int64_t net = 0; net < task.count; ++net) {
        double square_sum = 0.0;
        for (int64_t part = 0; part < task.parts; ++part) {
            const float* values = task.gradients[part] + net * task.sizes[part];
            for (int64_t first = 0; first < task.sizes[part]; first += some) {
                const int64_t last = std::min(first + some, task.sizes[part]);
                float added = 0.0f;
                VECTORISED_SUM(added) for (int64_t i = first; i < last; ++i) added += values[i] * values[i];
                square_sum += added;
            }
        }
        task.norms[net] = float(std::sqrt(square_sum));
        const float scale = task.max_norm / (task.norms[net] + task.norm_floor);
        // Written so that a norm that is not a number makes the gradients none either.
        if (task.max_norm == 0.0f || scale >= 1.0f) continue;
        for (int64_t part = 0; part < task.parts; ++part) {
            float* values = task.gradients[part] + net * task.sizes[part];
            VECTORISED for (int64_t i = 0; i < task.sizes[part]; ++i) values[i] *= scale;
        }
    }
}

}  // namespace cfpos

extern "C" {

void cfpos_clip(const cfpos::Clipped* task) { cfpos::clip(*task); }

// Whether this processor has the registers that the blocks are made for.
int cfpos_products_are_faster() {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}

void cfpos_multiply(const cfpos::Product* product, int threads) {
    cfpos::for_parts(product->count, threads, 4,
                     [&](int64_t first, int64_t last) { cfpos::multiply(*product, first, last); });
}

}  // extern "C"
