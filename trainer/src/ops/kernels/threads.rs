//! Threads that run the pieces of a loop.
//!
//! A step has a hundred loops of some 100 µs, so what counts is how soon the others join in: idle threads look for the
//! next loop for a moment before they sleep, whoever is late is not waited for, and the calling thread works too. Pieces
//! depend on sizes alone, so results do not depend on who runs them.

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Looks for the next loop before a thread sleeps: about 100 µs.
const LOOKS: usize = 5000;
/// Looks at others that are still at work before the caller offers them its core.
const WAITS: usize = 2_000;

/// Bits of [`Shared::state`]: threads at work on the loop, whether more may join, the loop's number.
const WORKER: usize = 1;
const WORKERS: usize = 0xffff;
const OPEN: usize = 0x1_0000;
const LOOP: usize = 0x2_0000;

/// What a loop runs for each piece.
type Body = dyn Fn(usize) + Sync;

/// A cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    state: Line<AtomicUsize>,
    /// Next piece that nobody has taken.
    next: Line<AtomicUsize>,
    /// Pieces and body; written while the loop is closed and nobody is at work.
    job: UnsafeCell<Option<(usize, *const Body)>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

// SAFETY: `job` is written by the caller alone while no thread is at work, and read by threads that joined the open loop.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

thread_local! {
    /// What loops of this thread are shared with; none: they run on it alone.
    static CURRENT: Cell<Option<*const Shared>> = const { Cell::new(None) };
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Threads that share the loops of a caller.
pub struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// So many threads, the caller among them.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Line(AtomicUsize::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
        });
        let mut threads = Self { shared, others: Vec::new() };
        for i in 1..count.min(WORKERS) {
            let shared = Arc::clone(&threads.shared);
            let thread = std::thread::Builder::new().name(format!("kd-train-{i}"));
            threads.others.push(thread.spawn(move || work(&shared, i))?);
        }
        Ok(threads)
    }

    /// Calls `f`, whose loops (those of this module) are shared among the threads.
    pub fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Puts back what was there, also if `f` panics.
        struct Back(Option<*const Shared>);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let shared = (!self.others.is_empty()).then_some(Arc::as_ptr(&self.shared));
        let _back = Back(CURRENT.replace(shared));
        f()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.lock());
        self.shared.bell.notify_all();
        for thread in self.others.drain(..) {
            // A panic of a piece was passed on by `each`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.bed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs pieces until none is left.
    fn pieces(&self, n: usize, body: &(dyn Fn(usize) + Sync + '_)) {
        loop {
            let i = self.next.0.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return;
            }
            body(i);
        }
    }

    /// Whether there is something new for a thread that has seen loop `seen`.
    fn news(&self, seen: usize) -> bool {
        self.state.0.load(Ordering::SeqCst) & !WORKERS & !OPEN != seen || self.stop.load(Ordering::SeqCst)
    }

    /// Joins a loop if it is open and not `seen`.
    fn join(&self, seen: &mut usize) {
        let mut state = self.state.0.load(Ordering::Acquire);
        while state & OPEN != 0 {
            let joined = self.state.0.compare_exchange_weak(state, state + WORKER, Ordering::AcqRel, Ordering::Acquire);
            match joined {
                Err(now) => state = now,
                Ok(_) => {
                    // SAFETY: the loop is open and this thread is counted: the caller neither returns nor writes `job`.
                    let job = unsafe { *self.job.get() };
                    if let Some((n, body)) = job {
                        // SAFETY: the body lives until the caller returns; see `each`.
                        let body = unsafe { &*body };
                        if catch_unwind(AssertUnwindSafe(|| self.pieces(n, body))).is_err() {
                            self.panicked.store(true, Ordering::SeqCst);
                        }
                    }
                    self.state.0.fetch_sub(WORKER, Ordering::Release);
                    break;
                }
            }
        }
        *seen = state & !WORKERS & !OPEN;
    }
}

/// The life of one of the other threads.
fn work(shared: &Shared, index: usize) {
    INDEX.set(index);
    let mut seen = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if (0..LOOKS).any(|_| {
            std::hint::spin_loop();
            shared.news(seen)
        }) {
            shared.join(&mut seen);
            continue;
        }
        let mut guard = shared.lock();
        shared.sleepers.fetch_add(1, Ordering::SeqCst);
        while !shared.news(seen) {
            guard = shared.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Which of the threads this is: 0 for the caller.
pub fn index() -> usize {
    INDEX.get()
}

/// Calls `body(i)` for `i < n`, on the threads of the [`Threads::run`] around it; loops inside a piece run on its thread.
pub fn each(n: usize, body: impl Fn(usize) + Sync) {
    let shared = CURRENT.take();
    let Some(pointer) = shared.filter(|_| n > 1) else {
        (0..n).for_each(body);
        return CURRENT.set(shared);
    };
    /// Closes the loop and waits for those who joined, also if a piece of the caller panics.
    struct Close<'a>(&'a Shared, *const Shared);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.state.0.fetch_and(!OPEN, Ordering::AcqRel);
            let mut looks = 0;
            while self.0.state.0.load(Ordering::Acquire) & WORKERS != 0 {
                std::hint::spin_loop();
                looks += 1;
                if looks > WAITS {
                    std::thread::yield_now();
                }
            }
            CURRENT.set(Some(self.1));
        }
    }
    // SAFETY: `Threads::run` keeps the threads, and with them this, until it returns.
    let shared = unsafe { &*pointer };
    let body: &(dyn Fn(usize) + Sync + '_) = &body;
    // SAFETY: only the lifetime changes: `Close` ends all use of the body before this function returns.
    let erased = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync + '_), &'static Body>(body) };
    // SAFETY: no loop is open and nobody is at work: the last one's `Close` has waited.
    unsafe { *shared.job.get() = Some((n, erased)) };
    shared.next.0.store(0, Ordering::Relaxed);
    let last = shared.state.0.load(Ordering::Relaxed);
    shared.state.0.store(last.wrapping_add(LOOP) | OPEN, Ordering::SeqCst);
    if shared.sleepers.load(Ordering::SeqCst) > 0 {
        drop(shared.lock());
        shared.bell.notify_all();
    }
    let close = Close(shared, pointer);
    shared.pieces(n, body);
    drop(close);
    assert!(!shared.panicked.swap(false, Ordering::SeqCst), "a piece of a loop panicked on another thread");
}

/// Elements that pieces of a loop write, each its own.
struct Split<T>(*mut T, usize);
// SAFETY: pieces are disjoint; see `chunks`.
unsafe impl<T: Send> Send for Split<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Split<T> {}

impl<T> Split<T> {
    /// At most `len` elements from `from` on.
    ///
    /// # Safety
    /// The slice is borrowed exclusively while parts live, and no element is asked for twice.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint")]
    unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        let from = from.min(self.1);
        // SAFETY: inside the slice, by the bounds taken here; disjoint, by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len.min(self.1 - from)) }
    }

    /// Chunk `i` of so many elements.
    ///
    /// # Safety
    /// As [`Split::part`].
    #[expect(clippy::mut_from_ref, reason = "chunks are disjoint")]
    unsafe fn chunk(&self, i: usize, size: usize) -> &mut [T] {
        // SAFETY: by this function's contract.
        unsafe { self.part(i * size, size) }
    }
}

/// Calls `body` with the number and elements of each chunk of at most `size` elements.
pub fn chunks<T: Send>(y: &mut [T], size: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let size = size.max(1);
    let split = Split(y.as_mut_ptr(), y.len());
    // SAFETY: `each` calls once with every number; y is borrowed until it returns.
    each(y.len().div_ceil(size), |i| body(i, unsafe { split.chunk(i, size) }));
}

/// As [`chunks`] of each of the slice's sections of `section` elements, one section after another.
pub fn parts<T: Send>(y: &mut [T], section: usize, size: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let (section, size) = (section.max(1), size.max(1));
    let parts = section.div_ceil(size);
    let sections = Split(y.as_mut_ptr(), y.len());
    each(y.len().div_ceil(section) * parts, |i| {
        let part = i % parts * size;
        // SAFETY: `each` calls once with every number, and parts are disjoint; y is borrowed until it returns.
        body(i, unsafe { sections.part(i / parts * section + part, size.min(section - part)) });
    });
}

/// As [`chunks`] over three slices of the same length.
pub fn chunks3<T: Send>(y: [&mut [T]; 3], size: usize, body: impl Fn(usize, [&mut [T]; 3]) + Sync) {
    let size = size.max(1);
    let n = y.iter().map(|y| y.len()).min().unwrap_or(0).div_ceil(size);
    let y = y.map(|y| Split(y.as_mut_ptr(), y.len()));
    // SAFETY: as in `chunks`.
    each(n, |i| body(i, std::array::from_fn(|k| unsafe { y[k].chunk(i, size) })));
}

/// As [`chunks`] over two slices at once, until the first ends; the second's chunks are then empty where it has ended.
pub fn pairs<A: Send, B: Send>(
    (a, a_size): (&mut [A], usize),
    (b, b_size): (&mut [B], usize),
    body: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let a_size = a_size.max(1);
    let n = a.len().div_ceil(a_size);
    let (a, b) = (Split(a.as_mut_ptr(), a.len()), Split(b.as_mut_ptr(), b.len()));
    // SAFETY: as in `chunks`.
    each(n, |i| body(i, unsafe { a.chunk(i, a_size) }, unsafe { b.chunk(i, b_size) }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once_whatever_the_threads_and_however_often() {
        for count in [1, 2, 3, 8] {
            let mut threads = Threads::new(count).unwrap();
            let mut y = vec![0_u32; 1000];
            for round in 1..300 {
                let size = 1 + round * 7 % 90;
                threads.run(|| {
                    chunks(&mut y, size, |i, y| {
                        y.iter_mut().enumerate().for_each(|(j, y)| *y += (i * size + j) as u32)
                    });
                    // A loop inside a piece.
                    each(3, |_| each(2, |_| ()));
                });
                if round % 100 == 0 {
                    // Long enough that the others sleep.
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
            }
            assert!(y.iter().enumerate().all(|(i, &y)| y == 299 * i as u32), "{count} threads");
        }
    }

    #[test]
    fn two_slices_are_cut_alike_and_lanes_are_those_of_the_threads() {
        let mut threads = Threads::new(3).unwrap();
        let (mut a, mut b) = (vec![0; 10], vec![0; 25]);
        threads.run(|| {
            pairs((&mut a, 2), (&mut b, 5), |i, a, b| {
                a.fill(i);
                b.fill(10 * i);
                assert!(index() < 3);
            });
        });
        assert_eq!(a, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(b[4..11], [0, 10, 10, 10, 10, 10, 20]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_go_on() {
        let mut threads = Threads::new(2).unwrap();
        for bad in [0, 40] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                threads.run(|| each(41, |i| assert!(i != bad, "piece {i}")));
            }));
            assert!(result.is_err());
        }
        let mut y = vec![0; 64];
        threads.run(|| chunks(&mut y, 1, |i, y| y[0] = i));
        assert!(y.iter().enumerate().all(|(i, &y)| y == i));
    }
}
