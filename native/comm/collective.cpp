// The communicator: a queue and a thread that carries it out, so that JavaScript's thread never waits for another rank. On CUDA the thread also watches
// what it has enqueued: a kernel of a collective whose partner is gone would spin for ever, and so would every stream that waits for it.
#include "ops/collective.h"

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <optional>
#include <thread>

#include "comm/engine.h"
#include "core/error.h"

namespace libmoe {
namespace comm {

void Patience::interrupt(const std::string& message) {
  const std::lock_guard lock(mutex_);
  if (interrupted_.load(std::memory_order_relaxed)) return;  // the first reason is the one that explains the others
  message_ = message;
  interrupted_.store(true, std::memory_order_release);
}

std::string Patience::message() const {
  const std::lock_guard lock(mutex_);
  return message_;
}

void pause_between_polls(int64_t polls, Patience::Clock::duration waited, Patience::Clock::duration busy) {
  if (polls < 64 || waited < busy) std::this_thread::yield();
  else std::this_thread::sleep_for(std::chrono::microseconds(waited < 10 * busy ? 20 : 200));
}

void give_up(const std::string& message) { fail("ERR_LIBMOE_COLLECTIVE", message); }

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", seconds);
  return text;
}

}  // namespace comm

namespace {

using comm::Patience;

class QueuedCommunicator final : public Communicator, public std::enable_shared_from_this<QueuedCommunicator> {
 public:
  explicit QueuedCommunicator(const GroupPlace& place) : place_(place), patience_(place.timeout) {}

  void start(CollectiveDone connected) {
    enqueue({"connecting the ranks", {},
             [this](CollectiveEngine*) {
               engine_ = place_.engine == GroupPlace::Engine::nccl ? comm::make_nccl(place_, patience_) : comm::make_mpi(place_, patience_);
             },
             std::move(connected), false});
    // The thread keeps its communicator alive. It is detached: a process may end while an engine is stuck inside a call.
    std::thread([self = shared_from_this()] { self->run(); }).detach();
  }

  void submit(std::string what, std::vector<std::shared_ptr<Storage>> held, Job job, CollectiveDone done) override {
    enqueue({std::move(what), std::move(held), [job = std::move(job)](CollectiveEngine* engine) { job(*engine); }, std::move(done), true});
  }

  void drain(CollectiveDone done) override {
    enqueue({"waiting for the device", {},
             [this](CollectiveEngine*) {
               while (!flying_.empty()) {
                 watch();
                 if (!flying_.empty()) std::this_thread::sleep_for(std::chrono::microseconds(50));
               }
             },
             std::move(done), false});
  }

  void interrupt(const std::string& message) override { patience_.interrupt(message); }

  void close(bool agreed, CollectiveDone done) override {
    enqueue({"leaving the group", {},
             [this, agreed](CollectiveEngine* engine) {
               closing_ = true;
               if (!engine) return;
               if (agreed && failure_.empty()) engine->finish();
               else engine->abort();
             },
             std::move(done), false, true});
  }

 private:
  struct Item {
    std::string what;
    std::vector<std::shared_ptr<Storage>> held;
    std::function<void(CollectiveEngine*)> job;
    CollectiveDone done;
    bool moves_data = false;
    bool even_after_failure = false;
  };
  // Enqueued on the device, not yet seen to be complete.
  struct Flight {
    std::string what;
    std::vector<std::shared_ptr<Storage>> held;
    uint64_t ticket;
    Patience::Clock::time_point deadline;
  };

  void enqueue(Item item) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(item));
    }
    changed_.notify_one();
  }

  void run() {
    while (!closing_) {
      std::optional<Item> item = next();
      if (item) carry_out(*item);
      else guarded([this] { watch(); });
    }
    flying_.clear();
    engine_.reset();
  }

  // The next item; nothing when it is time to look at the device.
  std::optional<Item> next() {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return !queue_.empty(); };
    if (flying_.empty()) changed_.wait(lock, ready);
    else if (!changed_.wait_for(lock, std::chrono::milliseconds(1), ready)) return std::nullopt;
    Item item = std::move(queue_.front());
    queue_.pop_front();
    return item;
  }

  void carry_out(Item& item) {
    if (failure_.empty() && patience_.interrupted()) lose(patience_.message());
    if (!failure_.empty() && !item.even_after_failure) return item.done(&failure_);
    std::string error;
    try {
      item.job(engine_.get());
      if (item.moves_data && backend().mark_communication)
        flying_.push_back({item.what, std::move(item.held), backend().mark_communication(place_.device), patience_.deadline_from_now()});
    } catch (const std::exception& e) {
      error = item.what + ": " + e.what();
      lose(error);
      // A transfer that was begun may still write here when the other rank comes late after all: this memory is never used again.
      for (auto& storage : item.held) new std::shared_ptr<Storage>(std::move(storage));
    }
    item.done(error.empty() ? nullptr : &failure_);
  }

  template <class F> void guarded(F&& body) {
    try {
      body();
    } catch (const std::exception& e) {
      lose(e.what());
    }
  }

  // Lets go of what the device has passed; throws when something is late or called off.
  void watch() {
    while (!flying_.empty() && backend().communication_reached(place_.device, flying_.front().ticket)) flying_.pop_front();
    if (flying_.empty()) return;
    if (patience_.interrupted()) comm::give_up(patience_.message());
    if (Patience::Clock::now() > flying_.front().deadline)
      comm::give_up(flying_.front().what + ": rank " + std::to_string(place_.rank) + " has waited " + comm::seconds_text(patience_.seconds()) +
                    " for the device: a rank has not begun it, or its process or link is gone");
  }

  void lose(const std::string& why) {
    if (failure_.empty()) failure_ = why;
    if (engine_) engine_->abort();
    flying_.clear();
  }

  const Backend& backend() const { return backend_of(place_.device); }

  const GroupPlace place_;
  Patience patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  // Of the thread alone:
  std::unique_ptr<CollectiveEngine> engine_;
  std::deque<Flight> flying_;
  std::string failure_;
  bool closing_ = false;
};

}  // namespace

std::shared_ptr<Communicator> Communicator::open(const GroupPlace& place, CollectiveDone connected) {
  auto communicator = std::make_shared<QueuedCommunicator>(place);
  communicator->start(std::move(connected));
  return communicator;
}

}  // namespace libmoe
