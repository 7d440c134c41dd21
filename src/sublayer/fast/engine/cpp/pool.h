// A small pool of threads. Whoever calls works too; the others look for work a while, and then sleep.
//
// Parts of the work are taken by whoever comes, so a thread that is late delays nobody, and the caller alone does all of
// it where the machine is busy with something else. Which thread does a part makes no difference to the result.
#pragma once
#include <pthread.h>
#include <stdint.h>

struct Pool;

// NULL for no memory. Where the system gives fewer threads, there are fewer.
Pool* pool_new(int32_t threads);
void pool_free(Pool* pool);
// Threads stay behind in the process that made them. In one that was forked from it this makes new ones; to be called
// before a row of runs.
void pool_follow_fork(Pool* pool);

typedef void (*Part)(void* work, int64_t part, int32_t thread);

// part(work, 0, ...), ..., part(work, parts - 1, ...), at most 2^31 of them, in any order; `thread` is below `threads`.
void pool_run(Pool* pool, int64_t parts, Part part, void* work);

// The same for a function object f(part, thread).
template <class Function>
void spread(Pool* pool, int64_t parts, Function f) {
    pool_run(
        pool, parts, [](void* work, int64_t part, int32_t thread) { (*(Function*)work)(part, thread); }, &f);
}
