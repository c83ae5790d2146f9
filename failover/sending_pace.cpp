#include "failover/sending_pace.h"

#include <algorithm>
#include <numeric>

namespace holdfast::failover {
namespace {

constexpr std::chrono::hours counted_for{1};

}  // namespace

std::uint64_t SendingPace::recipients_of(const std::string& person, Time now) {
  auto found = sent_.find(person);
  if (found == sent_.end()) return 0;
  std::deque<Message>& messages = found->second;
  while (!messages.empty() && now - messages.front().when >= counted_for) messages.pop_front();
  return std::accumulate(messages.begin(), messages.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const Message& one) { return sum + one.recipients; });
}

void SendingPace::sent(const std::string& person, std::uint64_t recipients, Time now) {
  forget_old(now);
  sent_[person].push_back({now, recipients});
}

void SendingPace::not_sent(const std::string& person, std::uint64_t recipients) {
  std::deque<Message>& messages = sent_[person];
  auto one = std::find_if(messages.rbegin(), messages.rend(), [&](const Message& message) { return message.recipients == recipients; });
  if (one != messages.rend()) messages.erase(std::next(one).base());
}

/// Now and then all who have sent nothing for an hour.
void SendingPace::forget_old(Time now) {
  if (now - looked_at_ < counted_for) return;
  looked_at_ = now;
  std::erase_if(sent_, [&](const auto& one) { return one.second.empty() || now - one.second.back().when >= counted_for; });
}

}  // namespace holdfast::failover
