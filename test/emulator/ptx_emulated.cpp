#include "ptx_emulated.h"

#include <deque>
#include <vector>

namespace libmoe::cuda::ptx {
namespace {

struct Pending {
  std::vector<AsyncCopy> open;
  std::deque<std::vector<AsyncCopy>> groups;
  uint64_t block = 0;
};
// By thread of the running block. Copies that a block never waited for are dropped with it.
std::vector<Pending> pending;

Pending& mine() {
  const unsigned i = emulator::current->linear;
  if (pending.size() <= i) pending.resize(i + 1);
  Pending& p = pending[i];
  if (p.block != emulator::block_number()) {
    p.open.clear();
    p.groups.clear();
    p.block = emulator::block_number();
  }
  return p;
}

using Columns = float __attribute__((vector_size(32)));

float value_of(uint32_t pair, int half) { return std::bit_cast<float>(half ? pair & 0xffff0000u : pair << 16); }

}  // namespace

void cp_async(uint32_t to, const void* from, bool valid, uint32_t bytes) {
  if (to % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes)) emulator::fault("cp.async from or to an address that is no multiple of its size");
  mine().open.push_back({to, from, valid, bytes});
}
void cp_async_commit() {
  Pending& p = mine();
  p.groups.push_back(std::move(p.open));
  p.open.clear();
}
void cp_async_wait_for(int groups) {
  Pending& p = mine();
  while (p.groups.size() > size_t(groups)) {
    for (const AsyncCopy& c : p.groups.front()) perform(c);
    p.groups.pop_front();
  }
}
void perform(const AsyncCopy& c) {
  unsigned char* to = shared_at(c.to, c.bytes);
  if (c.valid) std::memcpy(to, c.from, c.bytes);
  else std::memset(to, 0, c.bytes);
}
std::vector<AsyncCopy> take_async_copies() {
  Pending& p = mine();
  std::vector<AsyncCopy> all;
  for (const auto& group : p.groups) all.insert(all.end(), group.begin(), group.end());
  all.insert(all.end(), p.open.begin(), p.open.end());
  p.groups.clear();
  p.open.clear();
  return all;
}

void ldmatrix(uint32_t (&r)[4], uint32_t address, bool transposed) {
  struct Lane {
    uint32_t address;
    uint32_t* r;
    bool transposed;
  } lane{address, r, transposed};
  emulator::collective(transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, &lane, [](void* const p[32], uint32_t) {
    for (int matrix = 0; matrix < 4; ++matrix)
      for (int l = 0; l < 32; ++l) {
        auto* to = static_cast<Lane*>(p[l]);
        uint16_t pair[2];
        for (int i = 0; i < 2; ++i) {
          const int row = to->transposed ? (l % 4) * 2 + i : l / 4, column = to->transposed ? l / 4 : (l % 4) * 2 + i;
          const uint32_t from = static_cast<Lane*>(p[matrix * 8 + row])->address;
          if (from % 16) emulator::fault("ldmatrix from a row address that is no multiple of 16");
          std::memcpy(&pair[i], shared_at(from, 16) + column * 2, 2);
        }
        to->r[matrix] = uint32_t(pair[1]) << 16 | pair[0];
      }
  });
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } lane{d, a, {b0, b1}};
  emulator::collective("mma", 0xffffffffu, &lane, [](void* const p[32], uint32_t) {
    // Fragments as the PTX manual lays them out: group = lane / 4, pair = lane % 4.
    float am[16][16], bm[16][8], dm[16][8];
    for (int l = 0; l < 32; ++l) {
      const auto* from = static_cast<Lane*>(p[l]);
      const int group = l / 4, pair = l % 4;
      for (int i = 0; i < 2; ++i) {
        am[group][pair * 2 + i] = value_of(from->a[0], i);
        am[group + 8][pair * 2 + i] = value_of(from->a[1], i);
        am[group][pair * 2 + 8 + i] = value_of(from->a[2], i);
        am[group + 8][pair * 2 + 8 + i] = value_of(from->a[3], i);
        bm[pair * 2 + i][group] = value_of(from->b[0], i);
        bm[pair * 2 + 8 + i][group] = value_of(from->b[1], i);
      }
    }
    // A column is a lane of a vector: this is where the time of the tests goes.
    for (int row = 0; row < 16; ++row) {
      Columns sum = {};
      for (int k = 0; k < 16; ++k) {
        Columns b;
        std::memcpy(&b, bm[k], sizeof b);
        sum += am[row][k] * b;
      }
      std::memcpy(dm[row], &sum, sizeof sum);
    }
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) static_cast<Lane*>(p[l])->d[i] += dm[l / 4 + (i >= 2 ? 8 : 0)][(l % 4) * 2 + (i & 1)];
  });
}

}  // namespace libmoe::cuda::ptx
