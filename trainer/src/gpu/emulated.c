// The tests' meaning of a kernel's words: the threads of a group take turns on one thread of the host, and change places
// where they wait for each other.
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define EMULATED_THREADS 8

static int emulated_thread;
static long long emulated_group, emulated_groups;
static void emulated_sync(void);

#define KERNEL(name) void name(const Args a)
#define DEVICE static inline
#define SHARED static
#define SYNC emulated_sync()
#define THREAD emulated_thread
#define THREADS EMULATED_THREADS
#define GROUP emulated_group
#define GROUPS emulated_groups

#include "sources.h"

// Signals are not switched with the threads: that would be a system call for each turn.
static jmp_buf caller, threads[EMULATED_THREADS];
static ucontext_t first;
static char stacks[EMULATED_THREADS][1 << 16];
static int is_done[EMULATED_THREADS];
static void (*kernel)(const Args);
static const Args *args;

static void switch_to(jmp_buf from, jmp_buf to) {
  if (_setjmp(from) == 0) _longjmp(to, 1);
}

static void emulated_sync(void) { switch_to(threads[emulated_thread], caller); }

// A thread: waits for its turn, runs the kernel, and again.
static void live(void) {
  static ucontext_t born;
  if (_setjmp(threads[emulated_thread]) == 0) swapcontext(&born, &first);
  for (;;) {
    kernel(*args);
    is_done[emulated_thread] = 1;
    switch_to(threads[emulated_thread], caller);
  }
}

static void bear(void) {
  static int is_born;
  for (emulated_thread = 0; !is_born && emulated_thread < EMULATED_THREADS; emulated_thread++) {
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[emulated_thread];
    context.uc_stack.ss_size = sizeof stacks[emulated_thread];
    makecontext(&context, live, 0);
    swapcontext(&first, &context);
  }
  is_born = 1;
}

// Runs all groups; the threads of a group in their order, or the other way round.
void emulate(void (*f)(const Args), long long groups, const Args *a, int backwards) {
  bear();
  kernel = f, args = a, emulated_groups = groups;
  for (emulated_group = 0; emulated_group < groups; emulated_group++) {
    memset(is_done, 0, sizeof is_done);
    for (int alive = EMULATED_THREADS; alive > 0;) {
      int ended = 0;
      for (int i = 0; i < EMULATED_THREADS; i++) {
        int t = backwards ? EMULATED_THREADS - 1 - i : i;
        if (is_done[t]) continue;
        emulated_thread = t;
        switch_to(caller, threads[t]);
        ended += is_done[t];
      }
      if (ended != 0 && ended != alive) {
        fprintf(stderr, "%d of %d threads wait for others that have ended\n", alive - ended, alive);
        abort();
      }
      alive -= ended;
    }
  }
}
