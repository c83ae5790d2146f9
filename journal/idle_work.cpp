#include "journal/idle_work.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

namespace holdfast::journal {
namespace {

bool has_capability(unsigned one) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
  return ::syscall(SYS_capget, &header, sets) == 0 && (sets[one / 32].effective >> one % 32 & 1) != 0;
}

bool may_leave_idle_class() {
  constexpr rlim_t nicest = 20;  // the limit counts down from it
  rlimit limit{};
  rlim_t needed = nicest - static_cast<rlim_t>(::getpriority(PRIO_PROCESS, 0));
  return has_capability(CAP_SYS_NICE) || (::getrlimit(RLIMIT_NICE, &limit) == 0 && limit.rlim_cur >= needed);
}

std::chrono::nanoseconds processor_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

IdleWork::IdleWork() : may_come_back_(::sched_getscheduler(0) == SCHED_OTHER && may_leave_idle_class()) { be_idle(true); }

IdleWork::~IdleWork() { be_idle(false); }

void IdleWork::step() {
  constexpr auto glance = std::chrono::milliseconds(200);
  constexpr auto turns = std::chrono::seconds(20);  // the usual class makes up for what an idle turn was worth: long ones pay
  if (!may_come_back_) return;
  auto passed = Clock::now() - looked_;
  if (passed < (is_idle_ ? glance : turns)) return;
  constexpr int next_to_nothing = 20;
  be_idle(!is_idle_ || (processor_time() - worked_) * next_to_nothing >= passed);
}

void IdleWork::be_idle(bool is_idle) {
  if (!may_come_back_) return;
  sched_param none{};
  if (is_idle != is_idle_ && ::sched_setscheduler(0, is_idle ? SCHED_IDLE : SCHED_OTHER, &none) == 0) is_idle_ = is_idle;
  worked_ = processor_time();
  looked_ = Clock::now();
}

}  // namespace holdfast::journal
