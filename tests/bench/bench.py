"""The benchmark of the relay: what Holdfast costs, beside what else could stand in its place.

All servers of a case run at the same time and are measured in turn, round after round, so that a noisy machine is noisy for
all of them. A ratio is the median over the rounds of the ratios within each round. What is wanted is printed beside it.
"""
import argparse
import os
import resource
import time

from failover_cases import case_drain, case_hold, case_long, case_trip
from journal_cases import case_audit, case_replay, case_verify
from mailbox_cases import case_imap, case_ready
from relay_cases import case_full, case_idle, case_kept, case_large, case_latency, case_reconnect, case_single

CASES = {"kept": case_kept, "reconnect": case_reconnect, "large": case_large, "single": case_single, "latency": case_latency, "idle": case_idle, "full": case_full,
         "hold": case_hold, "long": case_long, "drain": case_drain, "replay": case_replay, "verify": case_verify, "audit": case_audit, "trip": case_trip, "imap": case_imap, "ready": case_ready}


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the load, to see that it works; the figures mean nothing")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {' '.join(unknown)}")
    options.scaled = lambda count: max(20, count // 100) if options.quick else count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d %H:%M')}; Holdfast as delivered: journal synced and encrypted, order: before, a log line a message\n")
    for name, case in CASES.items():
        if not options.cases or name in options.cases:
            case(options)


if __name__ == "__main__":
    main()
