// Random numbers that are functions of a key, an episode and a place: no state, so that no order, batch or thread enters.
// The formulas of cfpos_envs/draws, which gives the same bits.
#pragma once

#include <cstdint>

namespace cfpos {

// Blocks of four 32-bit words by Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC11); counter: block, then episode.
struct Stream {
    uint64_t key, episode;
};

// Proposals for a gamma number; all are rejected once in 1e30.
constexpr int GAMMA_TRIES = 24;

constexpr int64_t blocks_for(int64_t numbers) { return (numbers + 3) / 4; }
constexpr int64_t gamma_blocks_for(int64_t numbers) { return (GAMMA_TRIES + 1) * ((numbers + 1) / 2); }

// Numbers into out[count]; entry e is word e / blocks of block ``first`` + e % blocks.
void fill_words(Stream stream, uint64_t first, int64_t count, uint32_t* out);
// Uniform in [0, 1), multiples of 2^-24.
void fill_uniform(Stream stream, uint64_t first, int64_t count, float* out);
// Normal, by Box and Muller.
void fill_normal(Stream stream, uint64_t first, int64_t count, float* out);
// Gamma with scale 1 and the given shapes, by Marsaglia and Tsang.
void fill_gamma(Stream stream, uint64_t first, int64_t count, const float* shape, float* out);

}  // namespace cfpos
