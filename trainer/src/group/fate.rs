//! How a group ends: the first reason counts, all are told, and nobody stays behind.

use std::io::{Error, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kd_runtime::Refusal;
use kd_runtime::error::Exit;

use super::Overdue;
use super::link::{BEAT, Link, SILENCE};

/// How long the main thread has to notice the end by itself, if it is at work: together with [`SILENCE`] and a beat, below
/// half a minute.
const GRACE: Duration = Duration::from_secs(10);
/// How long a failed call waits for the reason.
const REASON: Duration = Duration::from_secs(1);

/// How a group ends.
pub struct Fate {
    state: Mutex<State>,
    changed: Condvar,
    /// What a user does after a rank was lost.
    go_on: String,
}

#[derive(Default)]
struct State {
    ended: Option<Refusal>,
    /// All have come to the end of their work: connections may close.
    finished: bool,
    /// The main thread needs nobody any more.
    left: bool,
}

impl Fate {
    /// Of a group that is lucky so far.
    pub fn new(go_on: String) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), go_on }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it ended, if it has.
    pub fn ended(&self) -> Option<Refusal> {
        self.lock().ended.clone()
    }

    /// Ends it, unless it has ended; gives the reason that counts.
    pub fn end(&self, why: Refusal) -> Refusal {
        let mut state = self.lock();
        let counts = state.ended.get_or_insert(why).clone();
        self.changed.notify_all();
        counts
    }

    /// A connection failed. The reason may be on its way through another thread, so it is waited for a moment.
    pub fn lost(&self, rank: usize, error: &Error) -> Refusal {
        let state = self.lock();
        let waits = |state: &mut State| state.ended.is_none() && !state.left;
        let (state, _) = self.changed.wait_timeout_while(state, REASON, waits).unwrap_or_else(PoisonError::into_inner);
        drop(state);
        self.end(self.loss(rank, error))
    }

    /// The same as a thread notices it that listens: at once, and not at all once all are done.
    pub fn closed(&self, rank: usize, error: &Error) {
        let finished = self.lock().finished;
        if !finished {
            self.end(self.loss(rank, error));
        }
    }

    fn loss(&self, rank: usize, error: &Error) -> Refusal {
        let found = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("no sign of life for {} s", SILENCE.as_secs())
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "a closed connection: it was killed or has failed".into()
            }
            _ => error.to_string(),
        };
        let expected = "a process that trains on with the others";
        Refusal::new(format!("rank {rank}"), expected, found, &self.go_on).with_exit(Exit::Lacking)
    }

    /// From here on connections may close.
    pub fn finish(&self) {
        self.lock().finished = true;
    }

    /// The main thread needs nobody any more.
    pub fn leave(&self) {
        self.lock().left = true;
        self.changed.notify_all();
    }
}

/// What the keeper does: shows all others that this process lives, and at the end tells them the reason.
pub fn keep(fate: &Fate, links: &[Link], overdue: Overdue) {
    let mut state = fate.lock();
    let why = loop {
        match &state.ended {
            Some(why) => break why.clone(),
            None if state.left => return,
            None => {}
        }
        let waits = |state: &mut State| state.ended.is_none() && !state.left;
        let (next, timeout) =
            fate.changed.wait_timeout_while(state, BEAT, waits).unwrap_or_else(PoisonError::into_inner);
        state = next;
        if timeout.timed_out() {
            drop(state);
            links.iter().for_each(Link::beat);
            state = fate.lock();
        }
    };
    drop(state);
    links.iter().for_each(|link| link.tell(&why));
    let until = Instant::now() + GRACE;
    let mut state = fate.lock();
    while !state.left {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(state);
            return overdue(&why);
        }
        (state, _) = fate.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
    }
}
