// See pool.h.
#include "pool.h"

#include <stdlib.h>
#include <unistd.h>

// How often a thread looks for work before it sleeps: some 50 microseconds, the pause between the steps of a decoder.
constexpr int LOOKS = 2000;

struct Pool {
    int32_t wanted;
    int32_t threads;  // with the caller, as many as there are
    pid_t process;    // whose threads they are
    pthread_t* others;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    // What follows is read and written by all, atomically.
    // The number of the work, and how many of its parts nobody has taken yet: one word, so that a thread which comes late
    // cannot take a part of other work than that it has read.
    alignas(64) uint64_t ticket;
    alignas(64) int64_t undone;
    alignas(64) Part part;
    void* work;
    int64_t parts;
    int32_t sleeping;
    bool ended;
};

static void pause_shortly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t parts_left(uint64_t ticket) { return (uint32_t)ticket; }

static void take_parts(Pool* pool, int32_t thread) {
    uint64_t ticket = __atomic_load_n(&pool->ticket, __ATOMIC_ACQUIRE);
    while (parts_left(ticket) > 0) {
        // They may be of later work already; then the ticket is another one too, and nothing is taken.
        const Part part = __atomic_load_n(&pool->part, __ATOMIC_RELAXED);
        void* const work = __atomic_load_n(&pool->work, __ATOMIC_RELAXED);
        const int64_t parts = __atomic_load_n(&pool->parts, __ATOMIC_RELAXED);
        if (!__atomic_compare_exchange_n(&pool->ticket, &ticket, ticket - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            continue;
        }
        part(work, parts - parts_left(ticket), thread);
        __atomic_sub_fetch(&pool->undone, 1, __ATOMIC_ACQ_REL);
        ticket = __atomic_load_n(&pool->ticket, __ATOMIC_ACQUIRE);
    }
}

static bool has_work(Pool* pool) {
    return parts_left(__atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST)) > 0 || __atomic_load_n(&pool->ended, __ATOMIC_SEQ_CST);
}

struct Worker {
    Pool* pool;
    int32_t thread;
};

static void* work_until_ended(void* given) {
    const Worker worker = *(Worker*)given;
    Pool* const pool = worker.pool;
    free(given);
    while (!__atomic_load_n(&pool->ended, __ATOMIC_SEQ_CST)) {
        int looks = 0;
        while (!has_work(pool) && looks++ < LOOKS) pause_shortly();
        if (!has_work(pool)) {
            pthread_mutex_lock(&pool->mutex);
            // First it is said that somebody sleeps, then looked once more: the caller does it the other way around.
            __atomic_add_fetch(&pool->sleeping, 1, __ATOMIC_SEQ_CST);
            while (!has_work(pool)) pthread_cond_wait(&pool->wake, &pool->mutex);
            __atomic_sub_fetch(&pool->sleeping, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&pool->mutex);
        }
        take_parts(pool, worker.thread);
    }
    return NULL;
}

static void wake_all(Pool* pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

// Make the threads, of a pool that has none in this process.
static void start_threads(Pool* pool) {
    pool->threads = 1;
    pool->process = getpid();
    pool->ticket = 0;
    pool->sleeping = 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    while (pool->threads < pool->wanted) {
        Worker* const worker = (Worker*)malloc(sizeof(Worker));
        if (!worker) return;
        *worker = Worker{pool, pool->threads};
        if (pthread_create(&pool->others[pool->threads - 1], NULL, work_until_ended, worker)) {
            free(worker);
            return;
        }
        pool->threads++;
    }
}

Pool* pool_new(int32_t threads) {
    Pool* const pool = (Pool*)aligned_alloc(64, sizeof(Pool));
    if (!pool) return NULL;
    *pool = Pool{};
    pool->others = (pthread_t*)calloc((size_t)(threads > 1 ? threads : 1), sizeof(pthread_t));
    pool->wanted = pool->others ? threads : 1;
    start_threads(pool);
    return pool;
}

void pool_follow_fork(Pool* pool) {
    if (pool->process != getpid()) start_threads(pool);
}

void pool_free(Pool* pool) {
    if (!pool) return;
    if (pool->process == getpid()) {
        __atomic_store_n(&pool->ended, true, __ATOMIC_SEQ_CST);
        wake_all(pool);
        for (int32_t other = 0; other < pool->threads - 1; other++) pthread_join(pool->others[other], NULL);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->mutex);
    }
    free(pool->others);
    free(pool);
}

void pool_run(Pool* pool, int64_t parts, Part part, void* work) {
    if (parts <= 1 || pool->threads == 1) {
        for (int64_t index = 0; index < parts; index++) part(work, index, 0);
        return;
    }
    __atomic_store_n(&pool->part, part, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->work, work, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->parts, parts, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->undone, parts, __ATOMIC_RELAXED);
    const uint64_t number = (pool->ticket >> 32) + 1;
    __atomic_store_n(&pool->ticket, number << 32 | (uint64_t)parts, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleeping, __ATOMIC_SEQ_CST) > 0) wake_all(pool);
    take_parts(pool, 0);
    while (__atomic_load_n(&pool->undone, __ATOMIC_ACQUIRE) > 0) pause_shortly();
}
