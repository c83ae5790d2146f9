"""A machine that gives Holdfast no more threads (TasksMax is reached): mail goes on, what needs one says so, and all is done once there are some again."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from journals import *

# While the file is there, no thread can be started.
SHORTAGE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* with) {
  if (access("SHORTAGE", F_OK) == 0) return EAGAIN;
  int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) = dlsym(RTLD_NEXT, "pthread_create");
  return real(thread, attributes, run, with);
}
"""


@test("work on the journal is refused, and retention waits; a name that is new at a reload has no address; then both are done")
def _(scene):
    shortage, primary = scene.path("shortage"), scene.primary()
    holdfast = scene.holdfast(primary, before=preloading(scene, SHORTAGE.replace("SHORTAGE", shortage)), journal="segment_age: 1s\nretention: 2s")

    def send():
        assert scene.client(holdfast.port).send_mail().startswith("250 2.0.0 Ok: taken"), "mail goes on"
    send()
    open(shortage, "w").close()
    refused = holdfast.run("journal", "rekey", "--reason", "test", check=False)
    assert refused.returncode == 75 and "cannot start a thread" in refused.stderr, refused.stderr
    holdfast.upstreams = [f"localhost:{primary.port}"]
    holdfast.write_config()
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("cannot start a thread"), what="the complaint about the name")
    wait_for(lambda: holdfast.logged("routes changed"), what="the reload")
    equal(holdfast.status()["routes"][0]["name"], "primary")  # asked for without a thread
    os.remove(shortage)
    holdfast.run("journal", "rekey", "--reason", "test")
    holdfast.signal(signal.SIGHUP)
    wait_for(lambda: holdfast.logged("certificates were read again"), what="the other reload")  # which waits for the name
    send()
    wait_for(lambda: holdfast.logged(" pruned "), what="retention")
    sound(holdfast)


main()
