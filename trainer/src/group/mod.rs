//! Processes that train one network together: each has a share of every batch, and their numbers become one.
//!
//! Rank 0 is the middle of a star of TCP connections. What is summed is summed by it in the order of the ranks, so every
//! rank holds the same bits. Any failure is the end of all: whoever notices it tells the others why, and every later call
//! gives that reason.

pub mod join;
pub mod launch;

mod fate;
mod link;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};

use crate::run::signals::Stop;
use fate::Fate;
use link::{CHUNK_BYTES, Link, Next};

/// How often a rank that waits looks whether anything has ended.
const LOOK: Duration = Duration::from_millis(100);

/// What a program does when it must end although its main thread is at work: says why, and goes.
pub type Overdue = Box<dyn FnOnce(&Refusal) + Send>;

/// This process among those that train together.
pub struct Group {
    rank: usize,
    of: usize,
    /// Rank 0 has one to each other rank, in their order; each other rank has one to rank 0.
    links: Arc<Vec<Link>>,
    fate: Arc<Fate>,
    stop: Stop,
    at: Mutex<At>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Where in the talk of all ranks this one is.
#[derive(Default)]
struct At {
    /// Calls so far: all ranks make the same ones in the same order.
    turn: u32,
    bytes: Vec<u8>,
}

impl Group {
    fn new(rank: usize, of: usize, links: Vec<Link>, fate: Arc<Fate>, stop: &Stop, overdue: Overdue) -> Result<Self> {
        let links = Arc::new(links);
        let (told, keeps) = (Arc::clone(&links), Arc::clone(&fate));
        let keep = move || fate::keep(&keeps, &told, overdue);
        let keeper = Builder::new().name("kd-group".into()).spawn(keep).map_err(|error| {
            Refusal::new("group", "a thread that keeps in touch", error, "free some").with_exit(Exit::Lacking)
        })?;
        let (at, keeper) = (Mutex::default(), Mutex::new(Some(keeper)));
        Ok(Self { rank, of, links, fate, stop: stop.clone(), at, keeper })
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many train together.
    pub fn of(&self) -> usize {
        self.of
    }

    /// Whether this is rank 0, which alone writes.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// This rank's part of so many things: a run of them, as long as that of any other rank or one shorter.
    pub fn part(&self, n: usize) -> std::ops::Range<usize> {
        n * self.rank / self.of..n * (self.rank + 1) / self.of
    }

    /// The sum over all ranks, in the order of their numbers.
    pub fn sum(&self, values: &mut [f32]) -> Result<()> {
        let mut at = self.turn()?;
        if !self.leads() {
            self.send(&mut at, values, f32::to_le_bytes)?;
        }
        for link in self.links.iter() {
            let leads = self.leads();
            self.receive(link, at.turn, size_of_val(values), |from, bytes| {
                for (value, bytes) in values[from / 4..].iter_mut().zip(bytes.as_chunks::<4>().0) {
                    let theirs = f32::from_le_bytes(*bytes);
                    *value = if leads { *value + theirs } else { theirs };
                }
            })?;
        }
        if self.leads() {
            self.send(&mut at, values, f32::to_le_bytes)?;
        }
        Ok(())
    }

    /// What every rank has, one after another in the order of their numbers; all have equally many.
    pub fn gather(&self, mine: &[f64]) -> Result<Vec<f64>> {
        let mut at = self.turn()?;
        let mut all = vec![0.0; mine.len() * self.of];
        let take = |all: &mut [f64], from: usize, bytes: &[u8]| {
            let values = all[from / 8..].iter_mut().zip(bytes.as_chunks::<8>().0);
            values.for_each(|(value, bytes)| *value = f64::from_le_bytes(*bytes));
        };
        if self.leads() {
            all[..mine.len()].copy_from_slice(mine);
            for (i, link) in self.links.iter().enumerate() {
                let theirs = &mut all[(i + 1) * mine.len()..][..mine.len()];
                self.receive(link, at.turn, size_of_val(mine), |from, bytes| take(theirs, from, bytes))?;
            }
            self.send(&mut at, &all, f64::to_le_bytes)?;
        } else {
            self.send(&mut at, mine, f64::to_le_bytes)?;
            let len = size_of_val(&all[..]);
            self.receive(&self.links[0], at.turn, len, |from, bytes| take(&mut all, from, bytes))?;
        }
        Ok(all)
    }

    /// Gives all ranks the bytes of rank 0; another rank takes at most so many.
    pub fn broadcast(&self, bytes: &mut Vec<u8>, most: usize) -> Result<()> {
        let mut len = [bytes.len() as u64];
        let mut at = self.turn()?;
        if self.leads() {
            self.send(&mut at, &len, u64::to_le_bytes)?;
            return self.send(&mut at, bytes, |byte| [byte]);
        }
        let link = &self.links[0];
        self.receive(link, at.turn, 8, |_, bytes| {
            bytes.as_chunks::<8>().0.iter().for_each(|bytes| len[0] = u64::from_le_bytes(*bytes));
        })?;
        bytes.clear();
        let Some(len) = usize::try_from(len[0]).ok().filter(|len| *len <= most) else {
            let found = format!("{} bytes", len[0]);
            return Err(self.lose(link, format!("at most {most} bytes"), found));
        };
        // Grows by what arrives.
        self.receive(link, at.turn, len, |_, chunk| bytes.extend_from_slice(chunk))
    }

    /// Gives all ranks the numbers of rank 0.
    pub fn told(&self, numbers: &mut [f64]) -> Result<()> {
        let all = self.gather(numbers)?;
        numbers.copy_from_slice(&all[..numbers.len()]);
        Ok(())
    }

    /// Refuses, on all other ranks than the first, what is not as on rank 0.
    pub fn agree(&self, what: &str, mine: &str, action: &str) -> Result<()> {
        let mut first = mine.as_bytes().to_vec();
        self.broadcast(&mut first, CHUNK_BYTES)?;
        if first == mine.as_bytes() {
            return Ok(());
        }
        let expected = format!("those of rank 0 ({})", String::from_utf8_lossy(&first));
        Err(Refusal::new(what, expected, format!("others ({mine})"), action))
    }

    /// Why it ended, where it has: a rank was lost or has failed.
    pub fn check(&self) -> Result<()> {
        self.fate.ended().map_or(Ok(()), Err)
    }

    /// Tells all others why this rank ends, unless it ends because they do; gives the reason that counts for all.
    pub fn end(&self, why: Refusal) -> Refusal {
        let why = self.fate.end(why.within(format!("rank {}", self.rank)));
        self.leave();
        why
    }

    /// Waits for all ranks to come to the end of their work: from here on, nobody misses anybody.
    pub fn finish(&self) -> Result<()> {
        let mut at = self.turn()?;
        if !self.leads() {
            self.send(&mut at, &[], |byte: u8| [byte])?;
        }
        for link in self.links.iter() {
            self.receive(link, at.turn, 0, |_, _| ())?;
        }
        self.fate.finish();
        if self.leads() {
            // One that went away since has its work done, too.
            let _ = self.send(&mut at, &[], |byte: u8| [byte]);
        }
        drop(at);
        self.leave();
        Ok(())
    }

    /// The keeper has said what is to be said.
    fn leave(&self) {
        self.fate.leave();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It does not panic; if it did, there is nothing left to say.
        keeper.map(JoinHandle::join);
    }

    /// The next turn.
    fn turn(&self) -> Result<MutexGuard<'_, At>> {
        self.check()?;
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.turn = at.turn.wrapping_add(1);
        Ok(at)
    }

    /// Sends values to all links, in chunks; at least one, which may be empty.
    fn send<T: Copy, const N: usize>(&self, at: &mut At, values: &[T], encode: impl Fn(T) -> [u8; N]) -> Result<()> {
        let mut chunks = values.chunks(CHUNK_BYTES / N);
        let mut chunk = chunks.next().unwrap_or(&[]);
        loop {
            at.bytes.resize(chunk.len() * N, 0);
            let bytes = at.bytes.as_chunks_mut::<N>().0.iter_mut();
            bytes.zip(chunk).for_each(|(bytes, &value)| *bytes = encode(value));
            for link in self.links.iter() {
                if let Err(error) = link.send(at.turn, &at.bytes) {
                    return Err(self.fate.lost(link.rank, &error));
                }
            }
            match chunks.next() {
                Some(next) => chunk = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes so many bytes of a link, a chunk after another with its place.
    fn receive(&self, link: &Link, turn: u32, len: usize, mut take: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut from = 0;
        loop {
            let chunk = self.next(link)?;
            let expected = (len - from).min(CHUNK_BYTES);
            if (chunk.turn, chunk.bytes.len()) != (turn, expected) {
                let found = format!("{} bytes of turn {}", chunk.bytes.len(), chunk.turn);
                return Err(self.lose(link, format!("{expected} bytes of turn {turn}"), found));
            }
            take(from, &chunk.bytes);
            from += expected;
            if from == len {
                return Ok(());
            }
        }
    }

    /// The next chunk of a link; an error once anything has ended, or this process was asked to stop.
    fn next(&self, link: &Link) -> Result<link::Chunk> {
        loop {
            match link.next(LOOK) {
                Next::Chunk(chunk) => return Ok(chunk),
                Next::Nothing => self.check()?,
                Next::Closed => return Err(self.fate.lost(link.rank, &std::io::ErrorKind::UnexpectedEof.into())),
            }
            if let Some((signal, exit)) = self.stop.asked() {
                let (expected, found) = ("training to end", format!("{signal} while it waited for rank {}", link.rank));
                return Err(Refusal::new("group", expected, found, "go on with --resume").with_exit(exit));
            }
        }
    }

    /// A rank that speaks otherwise is as good as lost.
    fn lose(&self, link: &Link, expected: String, found: String) -> Refusal {
        let action = "start all with the same program";
        self.fate.end(Refusal::new(format!("rank {}", link.rank), expected, found, action).with_exit(Exit::Lacking))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.leave();
        self.links.iter().for_each(Link::close);
    }
}
