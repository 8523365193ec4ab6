/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "offload.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct queue {
    struct loop_work *head, **end;
};

struct offload {
    struct loop *loop;
    struct loop_watch watch; /* delivers what is finished */
    unsigned outstanding;    /* loop's thread only */
    pthread_t threads[LOOP_THREADS];
    unsigned thread_count; /* loop's thread only */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wanted;
    struct queue waiting, finished;
    unsigned queued; /* in waiting */
    unsigned idle;   /* threads that wait for work */
    bool ending;
};

static void queue_init(struct queue *queue)
{
    queue->head = NULL;
    queue->end = &queue->head;
}

static void queue_add(struct queue *queue, struct loop_work *work)
{
    work->next = NULL;
    *queue->end = work;
    queue->end = &work->next;
}

static struct loop_work *queue_take(struct queue *queue)
{
    struct loop_work *work = queue->head;

    if (work) {
        queue->head = work->next;
        if (!queue->head)
            queue->end = &queue->head;
    }
    return work;
}

static void *thread_main(void *arg)
{
    struct offload *offload = arg;

    pthread_mutex_lock(&offload->lock);
    for (;;) {
        struct loop_work *work = queue_take(&offload->waiting);

        if (!work) {
            if (offload->ending)
                break;
            offload->idle++;
            pthread_cond_wait(&offload->wanted, &offload->lock);
            offload->idle--;
            continue;
        }
        offload->queued--;
        pthread_mutex_unlock(&offload->lock);
        work->run(work);
        pthread_mutex_lock(&offload->lock);
        /* One wake-up for a batch: whoever takes the list takes all of it. */
        bool first = !offload->finished.head;
        queue_add(&offload->finished, work);
        if (first)
            loop_wake(offload->loop);
    }
    pthread_mutex_unlock(&offload->lock);
    return NULL;
}

static void prepare(struct loop_watch *watch, struct loop_interest *interest)
{
    struct offload *offload = container_of(watch, struct offload, watch);

    if (!offload->outstanding)
        return;
    pthread_mutex_lock(&offload->lock);
    if (offload->finished.head)
        interest->deadline = 0;
    pthread_mutex_unlock(&offload->lock);
}

static void service(struct loop_watch *watch, short revents)
{
    struct offload *offload = container_of(watch, struct offload, watch);
    struct loop_work *work;

    (void)revents;
    pthread_mutex_lock(&offload->lock);
    work = offload->finished.head;
    queue_init(&offload->finished);
    pthread_mutex_unlock(&offload->lock);
    while (work) {
        struct loop_work *next = work->next;

        offload->outstanding--;
        work->done(work);
        work = next;
    }
}

struct offload *offload_new(struct loop *loop)
{
    struct offload *offload = calloc(1, sizeof(*offload));

    if (!offload)
        return NULL;
    offload->loop = loop;
    offload->watch.prepare = prepare;
    offload->watch.service = service;
    pthread_mutex_init(&offload->lock, NULL);
    pthread_cond_init(&offload->wanted, NULL);
    queue_init(&offload->waiting);
    queue_init(&offload->finished);
    loop_watch(loop, &offload->watch);
    return offload;
}

void offload_free(struct offload *offload)
{
    assert(!offload->outstanding);
    pthread_mutex_lock(&offload->lock);
    offload->ending = true;
    pthread_cond_broadcast(&offload->wanted);
    pthread_mutex_unlock(&offload->lock);
    for (unsigned i = 0; i < offload->thread_count; i++)
        pthread_join(offload->threads[i], NULL);
    loop_unwatch(offload->loop, &offload->watch);
    pthread_cond_destroy(&offload->wanted);
    pthread_mutex_destroy(&offload->lock);
    free(offload);
}

/* Signals are for the main thread. */
static int add_thread(struct offload *offload)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&offload->threads[offload->thread_count], NULL, thread_main, offload);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        offload->thread_count++;
    return -rc;
}

int offload_add(struct offload *offload, struct loop_work *work)
{
    bool more;

    pthread_mutex_lock(&offload->lock);
    queue_add(&offload->waiting, work);
    offload->queued++;
    more = offload->queued > offload->idle && offload->thread_count < LOOP_THREADS;
    pthread_cond_signal(&offload->wanted);
    pthread_mutex_unlock(&offload->lock);
    offload->outstanding++;
    if (more) {
        int rc = add_thread(offload);

        /* With a thread there already the work only waits a little longer. */
        if (rc < 0 && offload->thread_count == 0) {
            pthread_mutex_lock(&offload->lock);
            queue_init(&offload->waiting); /* held only this one: nothing else can be waiting */
            offload->queued = 0;
            pthread_mutex_unlock(&offload->lock);
            offload->outstanding--;
            return rc;
        }
    }
    return 0;
}
