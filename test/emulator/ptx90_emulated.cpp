#include "ptx90_emulated.h"

#include <cmath>
#include <cstdlib>
#include <deque>
#include <unordered_map>
#include <vector>

#include "cuda_runtime.h"

namespace libmoe::cuda::ptx {
namespace {

struct Box {
  CUtensorMap map;
  uint32_t to;
  int at[3];
  uint32_t bytes() const { return map.box[0] * map.box[1] * map.box[2] * 2; }
};
struct Barrier {
  uint32_t arrivals = 0, pending = 0, phase = 0;
  int64_t bytes = 0;  // announced less arrived
  std::vector<Box> boxes;
  std::vector<std::vector<AsyncCopy>> copies;  // of one thread each; an arrival follows
};

struct Product {
  float* d[32];
  int n;
  bool mn_major_a, mn_major_b;
  uint64_t a, b, fenced;
};
struct Warp {
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  std::vector<float> held;  // the sums while products are under way; their registers hold NaNs
  size_t issued = 0;
};

// Of the running block.
struct Block {
  uint64_t number = 0;
  std::unordered_map<uint32_t, Barrier> barriers;
  std::vector<Warp> warps;
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> issued;  // by warp group: the operands of each product
  uint64_t clock = 1;
  std::vector<uint64_t> written;  // when cp.async last wrote 16 bytes of shared memory; 0: the copy engine did
  std::vector<uint64_t> fenced;   // when a thread last executed fence.proxy.async
} block;

Block& here() {
  if (block.number != emulator::block_number()) {
    block = Block{};
    block.number = emulator::block_number();
    block.written.assign(emulator::dynamic_shared_size() / 16 + 1, 0);
    const unsigned threads = emulator::block_dim.x * emulator::block_dim.y * emulator::block_dim.z;
    block.fenced.assign(threads, 0);
    block.warps.resize((threads + 31) / 32);
    block.issued.resize((threads + 127) / 128);
  }
  return block;
}

bool at_once() {
  static uint64_t state = 1;
  if (!std::getenv("LIBMOE_EMULATOR_ORDER")) return false;
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return state >> 63;
}

Barrier& barrier_at(uint32_t address) {
  auto& all = here().barriers;
  const auto found = all.find(address);
  if (found == all.end()) emulator::fault("an mbarrier is used that was not initialised");
  return found->second;
}
void end_phase_if_complete(Barrier& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  ++b.phase;
  b.pending = b.arrivals;
  emulator::progress();
}
void arrive(Barrier& b) {
  if (b.pending == 0) emulator::fault("more arrivals at an mbarrier than it was initialised with");
  --b.pending;
  end_phase_if_complete(b);
}

uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7u) << 4; }

void deliver(Barrier& b, const Box& box) {
  const CUtensorMap& m = box.map;
  uint32_t to = box.to;
  for (uint32_t z = 0; z < m.box[2]; ++z)
    for (uint32_t y = 0; y < m.box[1]; ++y)
      for (uint32_t x = 0; x < m.box[0]; x += 8, to += 16) {
        uint16_t piece[8] = {};
        for (uint32_t i = 0; i < 8; ++i) {
          const int64_t at[3] = {int64_t(box.at[0]) + x + i, int64_t(box.at[1]) + y, int64_t(box.at[2]) + z};
          bool inside = true;
          for (int k = 0; k < 3; ++k) inside &= at[k] >= 0 && uint64_t(at[k]) < m.size[k];
          if (inside) std::memcpy(&piece[i], m.data + at[2] * int64_t(m.pitch[1]) + at[1] * int64_t(m.pitch[0]) + at[0] * 2, 2);
        }
        std::memcpy(shared_at(swizzled(to), 16), piece, 16);
        block.written[swizzled(to) / 16] = 0;
      }
  b.bytes -= box.bytes();
  end_phase_if_complete(b);
}
void deliver(Barrier& b, const std::vector<AsyncCopy>& copies) {
  for (const AsyncCopy& c : copies) {
    perform(c);
    block.written[c.to / 16] = ++block.clock;
  }
  arrive(b);
}

float bf16_at(const unsigned char* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return std::bit_cast<float>(uint32_t(bits) << 16);
}

// 16 bytes of an operand: 8 elements along k, or along m or n.
void operand_piece(uint64_t descriptor, bool mn_major, int mn, int k, uint64_t fenced, float (&out)[8]) {
  const auto field = [&](int bit) { return uint32_t(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
    emulator::fault("a wgmma descriptor without 128-byte swizzle or with a base offset, which this emulator does not know");
  const uint32_t linear = mn_major ? start + uint32_t(mn / 64) * leading + uint32_t(k / 8) * stride + uint32_t(k % 8) * 128 + uint32_t(mn % 64) * 2
                                   : start + uint32_t(mn / 8) * stride + uint32_t(mn % 8) * 128 + uint32_t(k) * 2;
  const uint32_t address = swizzled(linear);
  if (block.written[address / 16] > fenced) emulator::fault("wgmma reads what cp.async wrote, without fence.proxy.async in between");
  const unsigned char* from = shared_at(address, 16);
  for (int i = 0; i < 8; ++i) out[i] = bf16_at(from + 2 * i);
}

void run(const Product& p, int warp_of_group) {
  static float a[16][16], b[16][256];
  float piece[8];
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 16; ++i) {
      if (p.mn_major_a) operand_piece(p.a, true, warp_of_group * 16 + half * 8, i, p.fenced, piece);
      else operand_piece(p.a, false, warp_of_group * 16 + i, half * 8, p.fenced, piece);
      for (int j = 0; j < 8; ++j) (p.mn_major_a ? a[half * 8 + j][i] : a[i][half * 8 + j]) = piece[j];
    }
  for (int n = 0; n < p.n; n += 8)
    for (int i = 0; i < 16; ++i) {
      if (p.mn_major_b) operand_piece(p.b, true, n, i, p.fenced, piece);
      else operand_piece(p.b, false, n + i / 2, i % 2 * 8, p.fenced, piece);
      for (int j = 0; j < 8; ++j) (p.mn_major_b ? b[i][n + j] : b[i % 2 * 8 + j][n + i / 2]) = piece[j];
    }
  for (int row = 0; row < 16; ++row)
    for (int n = 0; n < p.n; n += 8) {
      float sum[8] = {};
      for (int k = 0; k < 16; ++k)
        for (int j = 0; j < 8; ++j) sum[j] += a[row][k] * b[k][n + j];
      for (int j = 0; j < 8; ++j) {
        p.d[row % 8 * 4 + j / 2][n / 8 * 4 + row / 8 * 2 + j % 2] += sum[j];
      }
    }
}

}  // namespace

void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
  if (barrier % 8) emulator::fault("an mbarrier's address is no multiple of 8");
  shared_at(barrier, 8);
  Barrier b;
  b.arrivals = b.pending = arrivals;
  here().barriers[barrier] = b;
}
void mbarrier_arrive(uint32_t barrier) { arrive(barrier_at(barrier)); }
void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  Barrier& b = barrier_at(barrier);
  b.bytes += bytes;
  arrive(b);
}
bool mbarrier_try_wait(uint32_t barrier, uint32_t parity) {
  Barrier& b = barrier_at(barrier);
  std::vector<Box> boxes;
  boxes.swap(b.boxes);
  for (const Box& box : boxes) deliver(b, box);
  std::vector<std::vector<AsyncCopy>> copies;
  copies.swap(b.copies);
  for (const auto& of_thread : copies) deliver(b, of_thread);
  return (b.phase & 1) != parity;
}
void cp_async_arrive(uint32_t barrier) {
  Barrier& b = barrier_at(barrier);
  b.copies.push_back(take_async_copies());
  if (!at_once()) return;
  const auto mine = std::move(b.copies.back());
  b.copies.pop_back();
  deliver(b, mine);
}
void fence_async_proxy() { here().fenced[emulator::current->linear] = block.clock; }

void copy_box(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x, int y, int z) {
  Barrier& b = barrier_at(barrier);
  if (to % 128) emulator::fault("the copy engine writes to a shared address that is no multiple of 128");
  const Box box{*map, to, {x, y, z}};
  shared_at(to, box.bytes());
  if (at_once()) deliver(b, box);
  else b.boxes.push_back(box);
}

void multiply(float* d, int n, bool mn_major_a, bool mn_major_b, uint64_t a, uint64_t b) {
  struct Lane {
    Product p;
    float* d;
  } lane{{{}, n, mn_major_a, mn_major_b, a, b, here().fenced[emulator::current->linear]}, d};
  emulator::collective("wgmma", 0xffffffffu, &lane, [](void* const p[32], uint32_t) {
    Product product = static_cast<Lane*>(p[0])->p;
    for (int l = 0; l < 32; ++l) {
      const Lane& each = *static_cast<Lane*>(p[l]);
      if (each.p.a != product.a || each.p.b != product.b) emulator::fault("the lanes of a warp give wgmma different descriptors");
      product.fenced = std::min(product.fenced, each.p.fenced);
      product.d[l] = each.d;
    }
    const unsigned warp = emulator::current->warp();
    Warp& w = block.warps[warp];
    if (w.open.empty() && w.groups.empty())
      for (float* sums : product.d) {
        w.held.insert(w.held.end(), sums, sums + product.n / 2);
        std::fill_n(sums, product.n / 2, std::nanf(""));
      }
    auto& log = block.issued[warp / 4];
    if (log.size() == w.issued) log.emplace_back(product.a, product.b);
    if (log[w.issued] != std::pair(product.a, product.b)) emulator::fault("the warps of a warp group give wgmma different descriptors");
    ++w.issued;
    w.open.push_back(product);
  });
}
void wgmma_commit() {
  here();
  emulator::collective("wgmma.commit_group", 0xffffffffu, nullptr, [](void* const*, uint32_t) {
    Warp& w = block.warps[emulator::current->warp()];
    w.groups.push_back(std::move(w.open));
    w.open.clear();
  });
}
void wgmma_wait_for(int groups) {
  here();
  emulator::collective("wgmma.wait_group", 0xffffffffu, &groups, [](void* const p[32], uint32_t) {
    const unsigned warp = emulator::current->warp();
    Warp& w = block.warps[warp];
    for (; w.groups.size() > size_t(*static_cast<int*>(p[0])); w.groups.pop_front())
      for (const Product& product : w.groups.front()) {
        for (size_t i = 0, each = size_t(product.n) / 2; i < w.held.size(); i += each) std::copy_n(w.held.begin() + long(i), each, product.d[i / each]);
        w.held.clear();
        run(product, int(warp % 4));
      }
  });
}

}  // namespace libmoe::cuda::ptx

// What the driver documents as the conditions of a tiled map, for what this project uses: bf16, three dimensions, 128-byte swizzle.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data, const cuuint64_t* size, const cuuint64_t* pitch,
                                const cuuint32_t* box, const cuuint32_t* step, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  bool good = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank == 3 && swizzle == CU_TENSOR_MAP_SWIZZLE_128B && reinterpret_cast<uintptr_t>(map) % 64 == 0 &&
              reinterpret_cast<uintptr_t>(data) % 16 == 0 && box[0] == 64;
  for (int i = 0; i < 3; ++i) good &= size[i] >= 1 && size[i] <= uint64_t(1) << 32 && box[i] >= 1 && box[i] <= 256 && step[i] == 1;
  for (int i = 0; i < 2; ++i) good &= pitch[i] % 16 == 0 && pitch[i] < uint64_t(1) << 40 && pitch[i] > 0;
  if (!good) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const unsigned char*>(data), {size[0], size[1], size[2]}, {pitch[0], pitch[1]}, {box[0], box[1], box[2]}};
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
  *function = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0 ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  if (result) *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
