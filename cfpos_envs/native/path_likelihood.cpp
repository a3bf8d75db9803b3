// A Gauss-Newton step on the likelihood of received blocks (baselines/ris/refine.py), in double precision.

#include "small_algebra.hpp"

namespace cfpos {

constexpr int MODES = 5, DELAY = 4;
constexpr double HALF_TURN = 3.141592653589793;

// The fields are those of ``_Step`` in baselines/ris/kernels.py, in its order.
struct Step {
    int64_t paths, sizes[MODES];
    double slopes[MODES];
    const Complex *focused, *delayed;  // [T, L, U, B]: at the delay of every path, and at the derivative of its vector
    const uint8_t* present;            // [T, L]
    const double* parameters;          // [T, L, 5]
    double* stepped;                   // [T, L, 5]; missing where only gains are wanted, as ``delayed`` then
    Complex* gains;                    // [T, L]
};

class Block {
public:
    explicit Block(const Step& step)
        : step_(step), paths_(int(step.paths)), unknowns_(5 + 3 * (paths_ - 1)), columns_(unknowns_ + 2 * paths_) {
        for (int path = 0; path < paths_; ++path)
            for (int mode = 0; mode < MODES; ++mode)
                // The departures over the surfaces are known.
                if (path == 0 || (mode != 2 && mode != 3)) owner_.push_back(path), axis_.push_back(mode);
        for (int part = 0; part < 2; ++part)
            for (int path = 0; path < paths_; ++path) owner_.push_back(path), axis_.push_back(-1);
        for (int q = 0; q < MODES; ++q)
            vector_[q].resize(paths_ * step.sizes[q]), prime_[q].resize(paths_ * step.sizes[q]);
        products_.resize(size_t(paths_) * paths_ * MODES * 4);
        matched_.resize(paths_), slopes_.resize(paths_ * MODES);
        gram_.resize(paths_ * paths_), gains_.resize(paths_);
        information_.resize(columns_ * columns_), uphill_.resize(columns_), scale_.resize(columns_);
        const int64_t u = step.sizes[0] * step.sizes[1], b = step.sizes[2] * step.sizes[3];
        bs_.resize(3 * b), ue_.resize(3 * u);
    }

    void run(int64_t row) {
        const double* parameters = step_.parameters + row * paths_ * MODES;
        const uint8_t* present = step_.present + row * paths_;
        steer(parameters);
        for (int path = 0; path < paths_; ++path) correlate(row, path);
        multiply();
        solve_gains(present);
        std::copy(gains_.begin(), gains_.end(), step_.gains + row * paths_);
        if (step_.stepped) move(parameters, present, step_.stepped + row * paths_ * MODES);
    }

private:
    const Complex* vector(int q, int path) const { return &vector_[q][path * step_.sizes[q]]; }
    const Complex* prime(int q, int path) const { return &prime_[q][path * step_.sizes[q]]; }

    // v_i = exp(j w i x) and v'_i = j w i v_i.
    void steer(const double* parameters) {
        for (int q = 0; q < MODES; ++q)
            for (int path = 0; path < paths_; ++path)
                for (int64_t i = 0; i < step_.sizes[q]; ++i) {
                    const double rate = step_.slopes[q] * double(i), phase = rate * parameters[path * MODES + q];
                    const Complex v = {std::cos(phase), std::sin(phase)};
                    vector_[q][path * step_.sizes[q] + i] = v;
                    prime_[q][path * step_.sizes[q] + i] = {-rate * v.im, rate * v.re};
                }
    }

    static void outer(const Complex* first, int64_t n1, const Complex* second, int64_t n2, Complex* out) {
        for (int64_t i = 0; i < n1; ++i)
            for (int64_t j = 0; j < n2; ++j) out[i * n2 + j] = first[i] * second[j];
    }

    // v^H Y of one path, and with the vector of each axis replaced by its derivative.
    void correlate(int64_t row, int path) {
        const int64_t *n = step_.sizes, u = n[0] * n[1], b = n[2] * n[3], block = (row * paths_ + path) * u * b;
        outer(vector(2, path), n[2], vector(3, path), n[3], &bs_[0]);
        outer(prime(2, path), n[2], vector(3, path), n[3], &bs_[b]);
        outer(vector(2, path), n[2], prime(3, path), n[3], &bs_[2 * b]);
        outer(vector(0, path), n[0], vector(1, path), n[1], &ue_[0]);
        outer(prime(0, path), n[0], vector(1, path), n[1], &ue_[u]);
        outer(vector(0, path), n[0], prime(1, path), n[1], &ue_[2 * u]);
        Complex plain = {0, 0}, sums[MODES] = {};
        for (int64_t i = 0; i < u; ++i) {
            Complex by_bs[3] = {}, by_delay = {0, 0};
            const Complex* entries = step_.focused + block + i * b;
            for (int64_t j = 0; j < b; ++j)
                for (int k = 0; k < 3; ++k) by_bs[k] = by_bs[k] + inner(bs_[k * b + j], entries[j]);
            if (step_.delayed)
                for (int64_t j = 0; j < b; ++j) by_delay = by_delay + inner(bs_[j], step_.delayed[block + i * b + j]);
            plain = plain + inner(ue_[i], by_bs[0]);
            sums[0] = sums[0] + inner(ue_[u + i], by_bs[0]), sums[1] = sums[1] + inner(ue_[2 * u + i], by_bs[0]);
            sums[2] = sums[2] + inner(ue_[i], by_bs[1]), sums[3] = sums[3] + inner(ue_[i], by_bs[2]);
            sums[DELAY] = sums[DELAY] + inner(ue_[i], by_delay);
        }
        matched_[path] = plain;
        std::copy(sums, sums + MODES, &slopes_[path * MODES]);
    }

    // x_q^H x'_q of all pairs of paths and axes, x the vector (0) or its derivative (1).
    void multiply() {
        for (int l = 0; l < paths_; ++l)
            for (int m = 0; m < paths_; ++m)
                for (int q = 0; q < MODES; ++q) {
                    const Complex *left[2] = {vector(q, l), prime(q, l)}, *right[2] = {vector(q, m), prime(q, m)};
                    for (int kind = 0; kind < 4; ++kind) {
                        Complex sum = {0, 0};
                        for (int64_t i = 0; i < step_.sizes[q]; ++i)
                            sum = sum + inner(left[kind / 2][i], right[kind % 2][i]);
                        products_[((l * paths_ + m) * MODES + q) * 4 + kind] = sum;
                    }
                }
    }

    // Product over the axes, with derivatives on axis ``first`` of path l and ``second`` of path m; -1: none.
    Complex product(int l, int m, int first, int second) const {
        const Complex* of_pair = &products_[(l * paths_ + m) * MODES * 4];
        Complex found = {1.0, 0.0};
        for (int q = 0; q < MODES; ++q) found = found * of_pair[4 * q + 2 * (q == first) + (q == second)];
        return found;
    }

    // See ``least_squares_gains`` of refine.py.
    void solve_gains(const uint8_t* present) {
        for (int l = 0; l < paths_; ++l) {
            for (int m = 0; m < paths_; ++m)
                gram_[l * paths_ + m] = present[l] && present[m] ? product(l, m, -1, -1) : Complex{double(l == m), 0.0};
            gains_[l] = present[l] ? matched_[l] : Complex{0.0, 0.0};
        }
        solve(gram_.data(), gains_.data(), paths_, power);
    }

    // See ``refine`` of refine.py.
    void move(const double* parameters, const uint8_t* present, double* stepped) {
        const auto coefficient = [&](int column) {
            if (column < unknowns_) return gains_[owner_[column]];
            return column < unknowns_ + paths_ ? Complex{1.0, 0.0} : Complex{0.0, 1.0};
        };
        for (int i = 0; i < columns_; ++i)
            for (int j = 0; j <= i; ++j) {
                const int l = owner_[i], m = owner_[j];
                double entry = i == j;
                if (present[l] && present[m])
                    entry = 2.0 * (inner(coefficient(i), coefficient(j)) * product(l, m, axis_[i], axis_[j])).re;
                information_[i * columns_ + j] = information_[j * columns_ + i] = entry;
            }
        for (int i = 0; i < columns_; ++i) {
            uphill_[i] = 0.0;
            // The gains are solved for already: their part of the right side is zero.
            if (i >= unknowns_) continue;
            uphill_[i] = 2.0 * inner(gains_[owner_[i]], slopes_[owner_[i] * MODES + axis_[i]]).re;
            for (int path = 0; path < paths_; ++path)
                uphill_[i] -= information_[i * columns_ + unknowns_ + path] * gains_[path].re +
                              information_[i * columns_ + unknowns_ + paths_ + path] * gains_[path].im;
        }
        // Units differ by many orders: scaled to a unit diagonal.
        for (int i = 0; i < columns_; ++i)
            scale_[i] = 1.0 / std::sqrt(std::max(information_[i * columns_ + i], std::numeric_limits<double>::min()));
        for (int i = 0; i < columns_; ++i) {
            uphill_[i] *= scale_[i];
            for (int j = 0; j < columns_; ++j) information_[i * columns_ + j] *= scale_[i] * scale_[j];
        }
        solve(information_.data(), uphill_.data(), columns_, [](double value) { return std::fabs(value); });
        std::copy(parameters, parameters + paths_ * MODES, stepped);
        for (int i = 0; i < unknowns_; ++i) {
            const int mode = axis_[i];
            // At most half a resolution cell.
            const double limit = HALF_TURN / (std::fabs(step_.slopes[mode]) * double(step_.sizes[mode]));
            const double moved = uphill_[i] * scale_[i];
            if (present[owner_[i]] && std::isfinite(moved))
                stepped[owner_[i] * MODES + mode] += std::min(std::max(moved, -limit), limit);
        }
        for (int path = 0; path < paths_; ++path)
            for (int mode = 0; mode < DELAY; ++mode) {
                double& cosine = stepped[path * MODES + mode];
                cosine = std::min(std::max(cosine, -1.0), 1.0);
            }
    }

    const Step& step_;
    int paths_, unknowns_, columns_;
    std::vector<int> owner_, axis_;  // of every unknown; axis -1: a gain
    std::vector<Complex> vector_[MODES], prime_[MODES], products_, matched_, slopes_, gram_, gains_, bs_, ue_;
    std::vector<double> information_, uphill_, scale_;
};

}  // namespace cfpos

extern "C" {

void cfpos_ris_step(const cfpos::Step* step, int64_t blocks, int threads) {
    cfpos::for_parts(blocks, threads, 8, [&](int64_t first, int64_t last) {
        cfpos::Block block(*step);
        for (int64_t row = first; row < last; ++row) block.run(row);
    });
}

}  // extern "C"
