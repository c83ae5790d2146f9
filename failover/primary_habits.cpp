#include "failover/primary_habits.h"

#include <algorithm>

namespace holdfast::failover {
namespace {

/// A greeting that takes no longer is quick.
constexpr PrimaryHabits::Span quick_greeting{100};
constexpr PrimaryHabits::Span usual_patience{500};

}  // namespace

const PrimaryHabits::Habit& PrimaryHabits::of(const std::string& address) const {
  static const Habit none;
  auto found = habits_.find(address);
  return found == habits_.end() ? none : found->second;
}

void PrimaryHabits::takes_greetings(const std::string& address, std::uint64_t most, Time now) {
  Habit& habit = habits_[address];
  habit.most_greetings = most;
  habit.forgotten_at = now + std::chrono::hours(1);
}

bool PrimaryHabits::takes_another_greeting(const std::string& address, std::uint64_t greetings, Time now) const {
  const Habit& habit = of(address);
  return greetings < habit.most_greetings || now >= habit.forgotten_at;
}

void PrimaryHabits::greeted_after(const std::string& address, Span took) {
  bool is_quick = took <= quick_greeting;
  if (is_quick && of(address).greeting_takes == Span(0)) return;
  habits_[address].greeting_takes = is_quick ? Span(0) : took;
}

PrimaryHabits::Span PrimaryHabits::patience_with_greeting(const std::string& address) const {
  return std::max(usual_patience, 4 * of(address).greeting_takes);
}

bool PrimaryHabits::takes_followers(const std::string& address) const { return of(address).takes_followers; }

}  // namespace holdfast::failover
