// A stand-in for NCCL, for tests only: NCCL's C interface over Unix sockets between real processes, on host memory, with communicators that do not
// block. Adds in the order of ranks. Misbehaves when told to, by variables of the process that is to misbehave:
//   STAND_IN_NCCL_VERSION=21003     what ncclGetVersion says
//   STAND_IN_NCCL_STALL=3           never gets through its third collective (0: never connects)
//   STAND_IN_NCCL_FAIL=3            reports a system error in its third collective and hangs up
//   STAND_IN_NCCL_REFUSE=2          refuses its second send
//   STAND_IN_NCCL_DELAY=20          milliseconds before each collective
// As NCCL's, groups of calls belong to a thread; a communicator that is aborted inside an open one says so on stderr.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Result : int { success = 0, systemError = 2, invalidArgument = 4, remoteError = 6, inProgress = 7 };

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoi(text) : otherwise;
}

size_t sizeOf(int type) {
  switch (type) {
    case 1: return 1;
    case 2: case 7: return 4;
    case 4: case 8: return 8;
    case 9: return 2;
    default: return 0;
  }
}

struct Bf16 {
  uint16_t bits;
  operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
  void operator=(float x) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    bits = uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};

template <class T, class A> void addUp(const std::vector<const char*>& inputs, char* to, size_t count, bool largest) {
  for (size_t i = 0; i < count; ++i) {
    A sum{};
    for (size_t r = 0; r < inputs.size(); ++r) {
      const A x = reinterpret_cast<const T*>(inputs[r])[i];
      sum = r == 0 ? x : largest ? (x > sum ? x : sum) : A(sum + x);
    }
    reinterpret_cast<T*>(to)[i] = sum;
  }
}

void reduce(int type, const std::vector<const char*>& inputs, char* to, size_t count, bool largest) {
  switch (type) {
    case 2: return addUp<int32_t, int32_t>(inputs, to, count, largest);
    case 4: return addUp<int64_t, int64_t>(inputs, to, count, largest);
    case 7: return addUp<float, float>(inputs, to, count, largest);
    case 8: return addUp<double, double>(inputs, to, count, largest);
    case 9: return addUp<Bf16, float>(inputs, to, count, largest);
  }
}

// A pipe to a peer that has still to send or receive.
struct Leg {
  int peer;
  char* data;
  size_t bytes;
  bool receives;
};

}  // namespace

struct ncclComm {
  int rank = 0, size = 1;
  std::string folder;
  std::vector<int> sockets;
  std::atomic<int> state{inProgress};
  std::atomic<bool> aborted{false};
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  std::thread thread;
  int collectives = 0;

  void fail(Result r) {
    for (int s : sockets)
      if (s >= 0) shutdown(s, SHUT_RDWR);
    state = r;
  }
  bool failed() const { return aborted || (state != success && state != inProgress); }

  sockaddr_un address(int r) const {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    std::snprintf(a.sun_path, sizeof a.sun_path, "%s/%d", folder.c_str(), r);
    return a;
  }

  void pause() const { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

  // Every rank calls those below it and is called by those above it.
  void connectAll() {
    sockets.assign(size_t(size), -1);
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un own = address(rank);
    if (bind(listener, reinterpret_cast<const sockaddr*>(&own), sizeof own) || listen(listener, size)) return fail(systemError);
    for (int r = 0; r < rank; ++r) {
      const sockaddr_un to = address(r);
      for (;;) {
        if (aborted) return;
        const int s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(s, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 && write(s, &rank, sizeof rank) == sizeof rank) {
          sockets[size_t(r)] = s;
          break;
        }
        close(s);
        pause();
      }
    }
    for (int n = rank + 1; n < size;) {
      if (aborted) return;
      pollfd p{listener, POLLIN, 0};
      if (poll(&p, 1, 20) <= 0) continue;
      const int s = accept(listener, nullptr, nullptr);
      int who = -1;
      if (s < 0 || read(s, &who, sizeof who) != sizeof who || who < 0 || who >= size) return fail(systemError);
      sockets[size_t(who)] = s;
      ++n;
    }
    close(listener);
    unlink(own.sun_path);
  }

  void exchange(std::vector<Leg> legs) {
    while (!legs.empty() && !failed()) {
      std::vector<pollfd> polls;
      for (const Leg& l : legs) polls.push_back({sockets[size_t(l.peer)], short(l.receives ? POLLIN : POLLOUT), 0});
      if (poll(polls.data(), polls.size(), 20) <= 0) continue;
      for (size_t i = 0; i < legs.size(); ++i) {
        if (!polls[i].revents) continue;
        Leg& l = legs[i];
        const ssize_t n = l.receives ? recv(polls[i].fd, l.data, l.bytes, MSG_DONTWAIT) : send(polls[i].fd, l.data, l.bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) return fail(remoteError);
        if (n > 0) l.data += n, l.bytes -= size_t(n);
      }
      std::erase_if(legs, [](const Leg& l) { return l.bytes == 0; });
    }
  }

  void run() {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return aborted || !queue.empty(); });
        if (aborted) return;
        job = std::move(queue.front());
        queue.pop_front();
      }
      if (!failed()) job();
      const std::lock_guard lock(mutex);
      int busy = inProgress;
      if (queue.empty()) state.compare_exchange_strong(busy, success);
    }
  }

  Result enqueue(std::function<void()> job) {
    if (failed()) return Result(state.load());
    const std::lock_guard lock(mutex);
    state = inProgress;
    queue.push_back(std::move(job));
    changed.notify_one();
    return inProgress;
  }

  Result collective(std::function<void()> job) {
    return enqueue([this, job = std::move(job)] {
      ++collectives;
      if (const int ms = number("STAND_IN_NCCL_DELAY", 0)) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
      if (number("STAND_IN_NCCL_STALL", -1) == collectives)
        while (!aborted) pause();
      if (number("STAND_IN_NCCL_FAIL", -1) == collectives) return fail(systemError);
      job();
    });
  }

  // What every rank r wants from this one is piece(r); answers what this one gets from each, by rank, own piece included.
  std::vector<std::vector<char>> swap(const std::function<std::vector<char>(int)>& piece) {
    std::vector<std::vector<char>> out(static_cast<size_t>(size)), in(static_cast<size_t>(size));
    std::vector<Leg> legs;
    for (int r = 0; r < size; ++r) {
      out[size_t(r)] = piece(r);
      in[size_t(r)].resize(piece(rank).size());
      if (r == rank) in[size_t(r)] = out[size_t(r)];
      else if (!out[size_t(r)].empty()) {
        legs.push_back({r, out[size_t(r)].data(), out[size_t(r)].size(), false});
        legs.push_back({r, in[size_t(r)].data(), in[size_t(r)].size(), true});
      }
    }
    exchange(legs);
    return in;
  }
};

namespace {

thread_local int groupDepth = 0;
struct Grouped {
  ncclComm* comm;
  Leg leg;
};
thread_local std::vector<Grouped> grouped;
std::atomic<int> sends{0};

std::vector<const char*> pointers(const std::vector<std::vector<char>>& parts) {
  std::vector<const char*> p;
  for (const auto& part : parts) p.push_back(part.data());
  return p;
}

struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};
struct UniqueId {
  char bytes[128];
};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int libmoeStandInNccl = 1;

Result ncclGetVersion(int* version) {
  *version = number("STAND_IN_NCCL_VERSION", 22703);
  return success;
}
const char* ncclGetErrorString(Result r) {
  return r == systemError ? "unhandled system error" : r == remoteError ? "remote process exited or there was a network error" : r == invalidArgument ? "invalid argument" : "other";
}
const char* ncclGetLastError(ncclComm*) { return ""; }

Result ncclGetUniqueId(UniqueId* id) {
  std::memset(id, 0, sizeof *id);
  std::strcpy(id->bytes, "/tmp/libmoe-stand-in-nccl-XXXXXX");
  return mkdtemp(id->bytes) ? success : systemError;
}

Result ncclCommInitRankConfig(ncclComm** comm, int size, UniqueId id, int rank, Config* config) {
  if (!config || config->magic != 0xcafebeef || config->blocking != 0 || rank < 0 || rank >= size) return invalidArgument;
  auto* c = new ncclComm;
  c->rank = rank;
  c->size = size;
  c->folder = id.bytes;
  *comm = c;
  c->thread = std::thread([c] { c->run(); });
  return c->enqueue([c] {
    if (number("STAND_IN_NCCL_STALL", -1) == 0)
      while (!c->aborted) c->pause();
    c->connectAll();
  });
}
Result ncclCommGetAsyncError(ncclComm* c, Result* state) {
  *state = Result(c->state.load());
  return success;
}
Result ncclCommCount(ncclComm* c, int* count) {
  *count = c->size;
  return success;
}
Result ncclCommAbort(ncclComm* c) {
  if (groupDepth > 0) std::fprintf(stderr, "stand-in NCCL: aborted inside a group of calls\n");
  {
    const std::lock_guard lock(c->mutex);
    c->aborted = true;
  }
  c->changed.notify_all();
  c->thread.join();
  for (int s : c->sockets)
    if (s >= 0) close(s);
  if (c->rank == 0) rmdir(c->folder.c_str());
  delete c;
  return success;
}
Result ncclCommFinalize(ncclComm* c) { return c->enqueue([] {}); }
Result ncclCommDestroy(ncclComm* c) { return ncclCommAbort(c); }

Result ncclAllReduce(const void* input, void* output, size_t count, int type, int op, ncclComm* c, void*) {
  return c->collective([=] {
    const char* data = static_cast<const char*>(input);
    const auto parts = c->swap([=](int) { return std::vector<char>(data, data + count * sizeOf(type)); });
    if (!c->failed()) reduce(type, pointers(parts), static_cast<char*>(output), count, op == 2);
  });
}
Result ncclReduceScatter(const void* input, void* output, size_t count, int type, int op, ncclComm* c, void*) {
  return c->collective([=] {
    const size_t bytes = count * sizeOf(type);
    const auto parts = c->swap([=](int r) {
      const char* data = static_cast<const char*>(input) + size_t(r) * bytes;
      return std::vector<char>(data, data + bytes);
    });
    if (!c->failed()) reduce(type, pointers(parts), static_cast<char*>(output), count, op == 2);
  });
}
Result ncclAllGather(const void* input, void* output, size_t count, int type, ncclComm* c, void*) {
  return c->collective([=] {
    const size_t bytes = count * sizeOf(type);
    const char* data = static_cast<const char*>(input);
    const auto parts = c->swap([=](int) { return std::vector<char>(data, data + bytes); });
    for (int r = 0; r < c->size; ++r) std::memcpy(static_cast<char*>(output) + size_t(r) * bytes, parts[size_t(r)].data(), bytes);
  });
}
Result ncclBroadcast(const void* input, void* output, size_t count, int type, int root, ncclComm* c, void*) {
  return c->collective([=] {
    const size_t bytes = count * sizeOf(type);
    std::vector<Leg> legs;
    if (c->rank != root) legs.push_back({root, static_cast<char*>(output), bytes, true});
    else
      for (int r = 0; r < c->size; ++r)
        if (r != root) legs.push_back({r, static_cast<char*>(const_cast<void*>(input)), bytes, false});
    c->exchange(legs);
  });
}
Result ncclSend(const void* data, size_t count, int type, int peer, ncclComm* c, void*) {
  if (groupDepth == 0 || ++sends == number("STAND_IN_NCCL_REFUSE", -1)) return invalidArgument;
  grouped.push_back({c, {peer, static_cast<char*>(const_cast<void*>(data)), count * sizeOf(type), false}});
  return inProgress;
}
Result ncclRecv(void* data, size_t count, int type, int peer, ncclComm* c, void*) {
  if (groupDepth == 0) return invalidArgument;
  grouped.push_back({c, {peer, static_cast<char*>(data), count * sizeOf(type), true}});
  return inProgress;
}
Result ncclGroupStart() {
  ++groupDepth;
  return success;
}
Result ncclGroupEnd() {
  if (--groupDepth > 0 || grouped.empty()) return success;
  ncclComm* c = grouped[0].comm;
  std::vector<Leg> legs, own;
  for (const Grouped& g : grouped) (g.leg.peer == c->rank ? own : legs).push_back(g.leg);
  grouped.clear();
  return c->collective([=] {
    for (const Leg& to : own)
      for (const Leg& from : own)
        if (to.receives && !from.receives) std::memmove(to.data, from.data, to.bytes < from.bytes ? to.bytes : from.bytes);
    c->exchange(legs);
  });
}
}
