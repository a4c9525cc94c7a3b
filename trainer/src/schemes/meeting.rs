//! Where the replicas of a codistillation meet: each leaves its parameters and takes those of the others, all of the same
//! step, so that the result does not depend on who is faster.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};

/// The parameters of one replica's network at one time, by name.
pub type Snapshot = Arc<Vec<(String, Vec<f32>)>>;

/// A place for so many replicas, each in a thread of its own.
pub struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What each has left at the present meeting.
    left: Vec<Option<Snapshot>>,
    /// What all had left at the last one.
    last: Vec<Snapshot>,
    /// Meetings that are over.
    over: u64,
    /// Why nobody will come any more: a replica failed or was stopped.
    ended: Option<String>,
}

impl Meeting {
    /// For so many replicas, at least one.
    pub fn new(replicas: usize) -> Self {
        let state = State { left: vec![None; replicas], last: Vec::new(), over: 0, ended: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the parameters of replica `me`, waits for all, and gives those of the others in their order. An error once
    /// one of them has [ended](Self::end).
    pub fn exchange(&self, me: usize, mine: Vec<(String, Vec<f32>)>) -> Result<Vec<Snapshot>> {
        let mut state = self.lock();
        let turn = state.over;
        state.left[me] = Some(Arc::new(mine));
        if state.left.iter().all(Option::is_some) {
            state.last = state.left.iter_mut().filter_map(Option::take).collect();
            state.over += 1;
            self.changed.notify_all();
        }
        while state.over == turn {
            if let Some(why) = &state.ended {
                let action = "see its message; go on with --resume";
                let refusal = Refusal::new("codistillation", "all replicas to go on", why, action);
                return Err(refusal.with_exit(Exit::VerdictFailed));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let others = state.last.iter().enumerate().filter(|(i, _)| *i != me);
        Ok(others.map(|(_, snapshot)| Arc::clone(snapshot)).collect())
    }

    /// Ends the meeting should the thread that holds this one panic.
    pub fn guard(&self) -> Guard<'_> {
        Guard(self)
    }

    /// Says that a replica comes no more before the end of training: whoever waits for it is woken.
    pub fn end(&self, why: &str) {
        let mut state = self.lock();
        state.ended.get_or_insert_with(|| why.to_string());
        self.changed.notify_all();
    }
}

/// Of one replica's thread.
pub struct Guard<'a>(&'a Meeting);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end("a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_what_the_others_left_at_the_same_meeting() {
        let meeting = Meeting::new(3);
        std::thread::scope(|scope| {
            for me in 0..3 {
                let meeting = &meeting;
                scope.spawn(move || {
                    for turn in 0..50 {
                        let mine = vec![("w".into(), vec![(100 * turn + me) as f32])];
                        let got: Vec<f32> =
                            meeting.exchange(me, mine).unwrap().iter().map(|snapshot| snapshot[0].1[0]).collect();
                        let others = (0..3).filter(|other| *other != me).map(|other| (100 * turn + other) as f32);
                        assert_eq!(got, others.collect::<Vec<_>>());
                    }
                });
            }
        });
    }

    #[test]
    fn one_that_ends_wakes_those_that_wait() {
        let meeting = Meeting::new(2);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| meeting.exchange(0, Vec::new()).err().map(|e| e.to_string()));
            meeting.end("replica 2: a loss that is not finite");
            let message = waits.join().unwrap().unwrap_or_default();
            assert!(message.contains("replica 2: a loss that is not finite"), "{message}");
        });
    }

    #[test]
    fn one_that_panics_wakes_those_that_wait() {
        let meeting = Meeting::new(2);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| meeting.exchange(0, Vec::new()).err().map(|e| e.to_string()));
            let panics = scope.spawn(|| {
                let _guard = meeting.guard();
                panic!("meant by this test");
            });
            assert!(panics.join().is_err());
            let message = waits.join().unwrap().unwrap_or_default();
            assert!(message.contains("a panic"), "{message}");
        });
    }
}
