// See random.hpp. Every operation on floating-point numbers here is rounded by itself, as torch does it: the compiler may
// not fuse a product with a sum, or the two would no longer give the same bits.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "random.hpp"

#include "lanes.hpp"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace cfpos {

// Four blocks: one word of each in the lower halves, whatever in the upper ones.
typedef uint64_t Words __attribute__((vector_size(32)));
constexpr int TOGETHER = 16;              // blocks
constexpr int VECTORS = TOGETHER / 4;

INLINE Words product(Words a, uint32_t b) {
#if defined(__AVX2__)
    return (Words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
    return (a & 0xffffffffu) * uint64_t(b);
#endif
}

// Words [4][TOGETHER] of the blocks from ``first`` on.
INLINE void blocks(Stream stream, uint64_t first, uint32_t (&words)[4][TOGETHER]) {
    for (int part = 0; part < VECTORS; part += 2) {
        Words c[4][2];
        for (int i = 0; i < 2; ++i) {
            const Words block = Words{0, 1, 2, 3} + (first + uint64_t(4 * (part + i)));
            c[0][i] = block;
            c[1][i] = block >> 32;
            c[2][i] = Words{} + stream.episode;
            c[3][i] = Words{} + (stream.episode >> 32);
        }
        uint32_t key0 = uint32_t(stream.key), key1 = uint32_t(stream.key >> 32);
        for (int round = 0; round < 10; ++round) {
            for (int i = 0; i < 2; ++i) {
                const Words p = product(c[0][i], 0xD2511F53u), q = product(c[2][i], 0xCD9E8D57u);
                c[0][i] = (q >> 32) ^ c[1][i] ^ uint64_t(key0);
                c[1][i] = q;
                c[2][i] = (p >> 32) ^ c[3][i] ^ uint64_t(key1);
                c[3][i] = p;
            }
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        for (int word = 0; word < 4; ++word)
            for (int i = 0; i < 2; ++i)
                for (int lane = 0; lane < 4; ++lane) words[word][4 * (part + i) + lane] = uint32_t(c[word][i][lane]);
    }
}

// work(words, block, there): ``there`` blocks from ``block`` on.
template <class Work>
INLINE void for_blocks(Stream stream, uint64_t first, int64_t count, const Work& work) {
    for (int64_t block = 0; block < count; block += TOGETHER) {
        uint32_t words[4][TOGETHER];
        blocks(stream, first + uint64_t(block), words);
        work(words, block, int(std::min<int64_t>(TOGETHER, count - block)));
    }
}

// numbers[4][TOGETHER] of the blocks from ``block`` on to where they belong.
template <class Number>
INLINE void put(const Number (&numbers)[4][TOGETHER], int64_t block, int there, int64_t all, int64_t count, Number* out) {
    for (int word = 0; word < 4; ++word) {
        const int64_t start = word * all + block, kept = std::min<int64_t>(there, count - start);
        if (kept == TOGETHER)
            std::memcpy(out + start, numbers[word], sizeof numbers[word]);
        else if (kept > 0)
            std::copy_n(numbers[word], kept, out + start);
    }
}

void fill_words(Stream stream, uint64_t first, int64_t count, uint32_t* out) {
    const int64_t all = blocks_for(count);
    for_blocks(stream, first, all, [&](const uint32_t(&words)[4][TOGETHER], int64_t block, int there) {
        put(words, block, there, all, count, out);
    });
}

void fill_uniform(Stream stream, uint64_t first, int64_t count, float* out) {
    const int64_t all = blocks_for(count);
    for_blocks(stream, first, all, [&](const uint32_t(&words)[4][TOGETHER], int64_t block, int there) {
        float numbers[4][TOGETHER];
        for (int word = 0; word < 4; ++word)
            VECTORISED for (int i = 0; i < TOGETHER; ++i)
                numbers[word][i] = float(int32_t(words[word][i] >> 8)) * 0x1p-24f;
        put(numbers, block, there, all, count, out);
    });
}

// sin(2 pi turn / 2^32): the angle is folded into +- pi / 2 as a whole number, without rounding.
INLINE float sine_of_turn(uint32_t turn) {
    const uint32_t folded = (turn + 0x40000000u) & 0x80000000u ? 0x80000000u - turn : turn;
    const float x = float(int32_t(folded)) * float(3.14159265358979 / 2147483648.0);
    const float t = x * x;
    float p = 2.60522484e-6f;
    p = p * t - 1.9809075457e-4f;
    p = p * t + 8.3330506459e-3f;
    p = p * t - 0.16666658222f;
    return x + x * t * p;
}

// Two normal numbers of two words: sqrt(-2 ln u) times cosine and sine of 2 pi v.
INLINE void normal_pair(uint32_t u, uint32_t v, float& with_cosine, float& with_sine) {
    const float share = (float(int32_t(u >> 1)) + 0.5f) * 0x1p-31f;
    const float size = std::sqrt(-2.0f * log_of(share));
    with_cosine = size * sine_of_turn(v + 0x40000000u);
    with_sine = size * sine_of_turn(v);
}

void fill_normal(Stream stream, uint64_t first, int64_t count, float* out) {
    const int64_t all = blocks_for(count);
    for_blocks(stream, first, all, [&](const uint32_t(&words)[4][TOGETHER], int64_t block, int there) {
        float numbers[4][TOGETHER];
        for (int pair = 0; pair < 4; pair += 2)
            VECTORISED for (int i = 0; i < TOGETHER; ++i)
                normal_pair(words[pair][i], words[pair + 1][i], numbers[pair][i], numbers[pair + 1][i]);
        put(numbers, block, there, all, count, out);
    });
}

// Natural logarithm in double precision: m = 2^-e x in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)), whose
// series breaks off below 1e-17.
INLINE double double_log(double x) {
    int64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    // Kept positive until it is shifted: not every processor shifts signed numbers of this size.
    const int64_t exponent = int64_t(uint64_t(bits - 0x3fe6a09e667f3bcd + (int64_t(1024) << 52)) >> 52) - 1024;
    bits -= exponent << 52;
    double m;
    std::memcpy(&m, &bits, sizeof m);
    const double f = m - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double p = 1.0 / 21.0;
    p = p * z + 1.0 / 19.0;
    p = p * z + 1.0 / 17.0;
    p = p * z + 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z + 1.0;
    return double(int32_t(exponent)) * 0.6931471805599453 + 2.0 * s * p;
}

// One proposal of Marsaglia and Tsang (2000) for shapes of at least 1: d v with d = shape - 1/3, v = (1 + c x)^3.
INLINE bool propose(float shape, float normal, uint32_t word, double& value) {
    const double a = shape < 1.0f ? double(shape) + 1.0 : double(shape);
    const double d = a - 1.0 / 3.0, x = normal, root = 1.0 + x * (1.0 / std::sqrt(9.0 * d));
    const double v = root > 0.0 ? root * root * root : 1.0;
    const double u = (double(word) + 0.5) * 0x1p-32;
    value = d * v;
    return root > 0.0 && double_log(u) < 0.5 * (x * x) + d * ((1.0 - v) + double_log(v));
}

void fill_gamma(Stream stream, uint64_t first, int64_t count, const float* shape, float* out) {
    const int64_t pairs = (count + 1) / 2;
    const auto again = [&](int64_t entry) {
        uint32_t words[4][TOGETHER];
        const int half = int(entry / pairs);
        double value = 0.0;
        for (int turn = 1; turn < GAMMA_TRIES; ++turn) {
            float numbers[2];
            blocks(stream, first + uint64_t(turn * pairs + entry % pairs), words);
            normal_pair(words[0][0], words[1][0], numbers[0], numbers[1]);
            if (propose(shape[entry], numbers[half], words[2 + half][0], value)) break;
        }
        return value;
    };
    const auto boosted = [&](int64_t entry, double value) {
        uint32_t words[4][TOGETHER];
        blocks(stream, first + uint64_t(GAMMA_TRIES * pairs + entry % pairs), words);
        const double u = (double(words[entry / pairs][0]) + 0.5) * 0x1p-32;
        return value * std::exp(double_log(u) / double(shape[entry]));
    };
    for_blocks(stream, first, pairs, [&](const uint32_t(&words)[4][TOGETHER], int64_t block, int there) {
        float numbers[2][TOGETHER];
        VECTORISED for (int i = 0; i < TOGETHER; ++i)
            normal_pair(words[0][i], words[1][i], numbers[0][i], numbers[1][i]);
        for (int half = 0; half < 2; ++half) {
            const int64_t start = half * pairs + block;
            const int kept = int(std::min<int64_t>(there, count - start));
            if (kept <= 0) continue;
            float wanted[TOGETHER];
            double values[TOGETHER];
            int32_t taken[TOGETHER];
            for (int i = 0; i < TOGETHER; ++i) wanted[i] = shape[start + std::min(i, kept - 1)];
            VECTORISED for (int i = 0; i < TOGETHER; ++i)
                taken[i] = propose(wanted[i], numbers[half][i], words[2 + half][i], values[i]);
            for (int i = 0; i < kept; ++i) {
                const double value = taken[i] ? values[i] : again(start + i);
                out[start + i] = float(wanted[i] < 1.0f ? boosted(start + i, value) : value);
            }
        }
    });
}

}  // namespace cfpos

extern "C" {

// Rows [rows][count] of words (0), uniform (1), normal (2) or gamma (3) numbers, row r of the stream of keys[r] and
// episodes[r]; shapes: of gamma numbers, [rows][count].
void cfpos_draw(int kind, const int64_t* keys, const int64_t* episodes, int64_t rows, int64_t first, int64_t count,
                const float* shapes, void* out, int threads) {
    using namespace cfpos;
    for_parts(rows, threads, std::max<int64_t>(1, 4096 / std::max<int64_t>(count, 1)), [&](int64_t from, int64_t to) {
        for (int64_t row = from; row < to; ++row) {
            const Stream stream{uint64_t(keys[row]), uint64_t(episodes[row])};
            float* numbers = static_cast<float*>(out) + row * count;
            if (kind == 0) fill_words(stream, uint64_t(first), count, static_cast<uint32_t*>(out) + row * count);
            if (kind == 1) fill_uniform(stream, uint64_t(first), count, numbers);
            if (kind == 2) fill_normal(stream, uint64_t(first), count, numbers);
            if (kind == 3) fill_gamma(stream, uint64_t(first), count, shapes + row * count, numbers);
        }
    });
}

}  // extern "C"
