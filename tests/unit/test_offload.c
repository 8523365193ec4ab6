/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other threads and the loop: waking it, and work that is done for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include <lunferry/loop.h>

/* ---- Waking ----------------------------------------------------------------------------------- */

struct waker {
    struct loop *loop;
    struct loop_watch watch;
    atomic_bool flag;
    bool seen;
    sem_t asleep; /* posted before the loop may sleep */
};

static void prepare_waker(struct loop_watch *watch, struct loop_interest *interest)
{
    struct waker *waker = container_of(watch, struct waker, watch);

    if (atomic_load(&waker->flag))
        interest->deadline = 0;
}

static void service_waker(struct loop_watch *watch, short revents)
{
    struct waker *waker = container_of(watch, struct waker, watch);

    (void)revents;
    waker->seen = true;
    atomic_store(&waker->flag, false);
}

static void *wake(void *arg)
{
    struct waker *waker = arg;

    sem_wait(&waker->asleep);
    atomic_store(&waker->flag, true);
    loop_wake(waker->loop);
    return NULL;
}

static void test_wake(void **state)
{
    struct waker waker = {.loop = loop_new(),
                          .watch = {.prepare = prepare_waker, .service = service_waker}};

    (void)state;
    sem_init(&waker.asleep, 0, 0);
    loop_watch(waker.loop, &waker.watch);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;

        waker.seen = false;
        assert_int_equal(pthread_create(&thread, NULL, wake, &waker), 0);
        sem_post(&waker.asleep);
        while (!waker.seen)
            loop_turn(waker.loop, LOOP_NEVER);
        pthread_join(thread, NULL);
    }
    loop_unwatch(waker.loop, &waker.watch);
    sem_destroy(&waker.asleep);
    loop_free(waker.loop);
}

/* A wake-up that comes before the sleep is not lost, and many are one. */
static void test_wake_before_sleep(void **state)
{
    struct loop *loop = loop_new();

    (void)state;
    for (int i = 0; i < 1000; i++)
        loop_wake(loop);
    loop_turn(loop, LOOP_NEVER);
    assert_false(loop_turn(loop, 0));
    loop_free(loop);
}

/* ---- Work ------------------------------------------------------------------------------------- */

struct job {
    struct loop *loop;
    pthread_t loop_thread;
    sem_t gate; /* what the first work waits for */
    atomic_uint started;
    unsigned done;
};

struct work {
    struct loop_work work;
    struct job *job;
    bool waits;
    bool elsewhere; /* it ran in a thread that is not the loop's, where no signal arrives */
    unsigned rank;  /* the how manieth that started, from 1 */
    unsigned done;
    unsigned again; /* how often done() offloads it once more */
};

static void run_work(struct loop_work *loop_work)
{
    struct work *work = container_of(loop_work, struct work, work);
    sigset_t mask;

    work->rank = atomic_fetch_add(&work->job->started, 1) + 1;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    work->elsewhere = !pthread_equal(pthread_self(), work->job->loop_thread) &&
                      sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM);
    if (work->waits)
        sem_wait(&work->job->gate);
}

static void work_done(struct loop_work *loop_work)
{
    struct work *work = container_of(loop_work, struct work, work);

    assert_true(pthread_equal(pthread_self(), work->job->loop_thread));
    assert_true(work->elsewhere);
    work->done++;
    if (work->again > 0) {
        work->again--;
        assert_int_equal(loop_offload(work->job->loop, loop_work), 0);
        return;
    }
    work->job->done++;
}

static void init_job(struct job *job)
{
    *job = (struct job){.loop = loop_new(), .loop_thread = pthread_self()};
    assert_non_null(job->loop);
    sem_init(&job->gate, 0, 0);
}

static void offload(struct job *job, struct work *work)
{
    *work = (struct work){.work = {.run = run_work, .done = work_done}, .job = job};
    assert_int_equal(loop_offload(job->loop, &work->work), 0);
    assert_int_equal(work->done, 0);
}

static void finish(struct job *job, unsigned count)
{
    while (job->done < count)
        loop_turn(job->loop, LOOP_NEVER);
    assert_int_equal(job->done, count);
    loop_free(job->loop);
    sem_destroy(&job->gate);
}

static void test_one_work(void **state)
{
    struct job job;
    struct work work;

    (void)state;
    init_job(&job);
    offload(&job, &work);
    finish(&job, 1);
    assert_int_equal(work.done, 1);
}

static void test_many_works(void **state)
{
    static struct work works[1000];
    struct job job;

    (void)state;
    init_job(&job);
    for (unsigned i = 0; i < 1000; i++)
        offload(&job, &works[i]);
    finish(&job, 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(works[i].done, 1);
}

static void test_work_again_from_done(void **state)
{
    struct job job;
    struct work work;

    (void)state;
    init_job(&job);
    offload(&job, &work);
    work.again = 100;
    finish(&job, 1);
    assert_int_equal(work.done, 101);
    assert_int_equal(job.started, 101);
}

/* With every thread but one held up, the others' work goes through that one, in order. */
static void test_limit_and_order(void **state)
{
    static struct work held[LOOP_THREADS], waiting[50];
    struct job job;

    (void)state;
    init_job(&job);
    for (unsigned i = 0; i < LOOP_THREADS; i++) {
        held[i] =
            (struct work){.work = {.run = run_work, .done = work_done}, .job = &job, .waits = true};
        assert_int_equal(loop_offload(job.loop, &held[i].work), 0);
    }
    for (unsigned i = 0; i < 50; i++)
        offload(&job, &waiting[i]);
    while (atomic_load(&job.started) < LOOP_THREADS)
        loop_turn(job.loop, 0);
    assert_int_equal(job.done, 0);
    sem_post(&job.gate);
    while (job.done < 51)
        loop_turn(job.loop, LOOP_NEVER);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(waiting[i].rank, LOOP_THREADS + 1 + i);
    for (unsigned i = 1; i < LOOP_THREADS; i++)
        sem_post(&job.gate);
    finish(&job, LOOP_THREADS + 50);
}

/* Threads that have nothing to do take the next work, too. */
static void test_idle_threads(void **state)
{
    struct job job;
    struct work work;

    (void)state;
    init_job(&job);
    for (unsigned i = 0; i < 200; i++) {
        offload(&job, &work);
        while (job.done <= i)
            loop_turn(job.loop, LOOP_NEVER);
    }
    finish(&job, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_wake_before_sleep),
        cmocka_unit_test(test_one_work),
        cmocka_unit_test(test_many_works),
        cmocka_unit_test(test_work_again_from_done),
        cmocka_unit_test(test_limit_and_order),
        cmocka_unit_test(test_idle_threads),
    };

    return cmocka_run_group_tests_name("offload", tests, NULL, NULL);
}
