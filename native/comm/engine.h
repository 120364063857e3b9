#pragma once
// What the engines share: patience, and how a communicator makes one.
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "ops/collective.h"

namespace libmoe::comm {

// How long the work under way may still take, and whether someone has called it off. One for each communicator.
class Patience {
 public:
  explicit Patience(double seconds) : seconds_(seconds) {}
  using Clock = std::chrono::steady_clock;

  double seconds() const { return seconds_; }
  Clock::time_point deadline_from_now() const { return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds_)); }

  void interrupt(const std::string& message);
  bool interrupted() const { return interrupted_.load(std::memory_order_acquire); }
  std::string message() const;

 private:
  const double seconds_;
  std::atomic<bool> interrupted_{false};
  mutable std::mutex mutex_;
  std::string message_;
};

// Between two looks at something that should be done after `busy`: gives the processor to others until then, sleeps later. Ranks may share processors with
// each other and with the work that goes on meanwhile; but an engine that moves bytes only while it is asked must be asked often.
void pause_between_polls(int64_t polls, Patience::Clock::duration waited, Patience::Clock::duration busy);
[[noreturn]] void give_up(const std::string& message);

// Polls until `done()`; throws the interruption's message, or what `late()` says at the deadline.
template <class Done, class Late> void wait_until(const Patience& patience, Patience::Clock::duration busy, Done&& done, Late&& late) {
  const auto begin = Patience::Clock::now(), deadline = patience.deadline_from_now();
  auto now = begin;
  for (int64_t polls = 0; !done(); ++polls) {
    if (patience.interrupted()) give_up(patience.message());
    if (now > deadline) give_up(late());
    pause_between_polls(polls, now - begin, busy);
    if (polls % 16 == 15) now = Patience::Clock::now();
  }
}

// 300 as "300 s", 0.5 as "0.5 s".
std::string seconds_text(double seconds);

// Connect with the other ranks; called on the communicator's thread.
std::unique_ptr<CollectiveEngine> make_nccl(const GroupPlace& place, const Patience& patience);
std::unique_ptr<CollectiveEngine> make_mpi(const GroupPlace& place, const Patience& patience);

// The part of `t` with these elements.
inline TensorView part(const TensorView& t, int64_t first, int64_t count) {
  TensorView v = t;
  v.data = static_cast<char*>(t.data) + size_t(first) * size_of(t.dtype);
  v.shape = Shape{1, {count}};
  return v;
}

}  // namespace libmoe::comm
