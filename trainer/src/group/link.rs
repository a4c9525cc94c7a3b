//! One connection of two ranks: chunks of bounded size, signs of life between them, and the reason of an end.
//!
//! A thread of its own reads all that comes, so that a rank that dies or falls silent is noticed while others compute.
//! A frame is a byte for its kind, the turn and the length of what follows; nothing is allocated beyond [`CHUNK_BYTES`].

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use kd_runtime::Refusal;
use kd_runtime::error::Exit;

use super::fate::Fate;

/// Most bytes of a chunk; whole numbers of f64.
pub const CHUNK_BYTES: usize = 1 << 18;
/// How often a rank shows that it lives.
pub const BEAT: Duration = Duration::from_secs(2);
/// After so long without any byte of a rank it is lost.
pub const SILENCE: Duration = Duration::from_secs(12);
/// How long a reason may take to be sent.
const TELLING: Duration = Duration::from_secs(2);
/// Chunks that wait for the main thread.
const AHEAD: usize = 4;
/// Most letters of each part of a reason.
const REASON_LETTERS: usize = 400;

const DATA: u8 = 1;
const LIVES: u8 = 2;
const ENDS: u8 = 3;
/// Kind, turn, length.
const HEAD: usize = 9;

/// What is sent at once.
pub struct Chunk {
    /// The call that it belongs to.
    pub turn: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What came next.
pub enum Next {
    /// A chunk.
    Chunk(Chunk),
    /// Nothing yet.
    Nothing,
    /// The connection is closed.
    Closed,
}

/// A connection to another rank.
pub struct Link {
    /// The other one.
    pub rank: usize,
    writer: Mutex<Writer>,
    chunks: Mutex<Receiver<Chunk>>,
    /// To close it by, whoever writes.
    stream: TcpStream,
}

impl Link {
    /// Begins to listen.
    pub fn start(rank: usize, stream: TcpStream, fate: &Arc<Fate>) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(None)?;
        let (send, chunks) = sync_channel(AHEAD);
        let (reads, fate) = (stream.try_clone()?, Arc::clone(fate));
        let listens = move || {
            match listen(&reads, &send) {
                Ok(why) => drop(fate.end(why)),
                Err(error) => fate.closed(rank, &error),
            }
            // Who is writing to it is stopped. It may be closed already.
            let _ = reads.shutdown(Shutdown::Both);
        };
        Builder::new().name(format!("kd-rank-{rank}")).spawn(listens)?;
        let writer = Mutex::new(Writer { stream: stream.try_clone()?, frame: Vec::new() });
        Ok(Self { rank, writer, chunks: Mutex::new(chunks), stream })
    }

    /// Sends a chunk of at most [`CHUNK_BYTES`].
    pub fn send(&self, turn: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write(DATA, turn, bytes)
    }

    /// Shows that this process lives, unless it is sending anyway.
    pub fn beat(&self) {
        if let Ok(mut writer) = self.writer.try_lock() {
            // Who listens notices what is wrong.
            let _ = writer.write(LIVES, 0, &[]);
        }
    }

    /// Tells why the group ends; nothing follows. One that takes nothing is left without a reason.
    pub fn tell(&self, why: &Refusal) {
        let until = Instant::now() + TELLING;
        let _ = self.stream.set_write_timeout(Some(TELLING));
        loop {
            match self.writer.try_lock() {
                Ok(mut writer) => {
                    let _ = writer.write(ENDS, 0, &encode(why));
                    let _ = self.stream.shutdown(Shutdown::Write);
                    return;
                }
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => return self.close(),
            }
        }
    }

    /// The next chunk, for which it waits so long.
    pub fn next(&self, wait: Duration) -> Next {
        match self.chunks.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(wait) {
            Ok(chunk) => Next::Chunk(chunk),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Closed,
        }
    }

    /// Closes it for both.
    pub fn close(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Who writes, with room for a frame.
struct Writer {
    stream: TcpStream,
    frame: Vec<u8>,
}

impl Writer {
    /// One write for a frame.
    fn write(&mut self, kind: u8, turn: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.frame.clear();
        self.frame.push(kind);
        self.frame.extend_from_slice(&turn.to_le_bytes());
        self.frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.frame.extend_from_slice(bytes);
        self.stream.write_all(&self.frame)
    }
}

/// Reads until the other one says why it ends, or an error.
fn listen(mut stream: &TcpStream, chunks: &SyncSender<Chunk>) -> std::io::Result<Refusal> {
    loop {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head)?;
        let [kind, a, b, c, d, e, f, g, h] = head;
        let (turn, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]) as usize);
        if len > CHUNK_BYTES {
            return Err(Error::other(format!("a frame of {len} bytes, which kd-train does not send")));
        }
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes)?;
        match kind {
            LIVES => {}
            // Where nobody takes chunks any more, a reason may still follow.
            DATA => drop(chunks.send(Chunk { turn, bytes })),
            ENDS => return decode(&bytes).ok_or_else(|| Error::other("an end without a reason")),
            _ => return Err(Error::new(ErrorKind::InvalidData, format!("a frame of kind {kind}, which there is not"))),
        }
    }
}

/// A reason as bytes: exit status and the four parts of the line, each cut to a length.
fn encode(why: &Refusal) -> Vec<u8> {
    let cut = |text: &str| text.chars().take(REASON_LETTERS).collect::<String>();
    let parts = [&why.at, &why.expected, &why.found, &why.action].map(|part| cut(part));
    serde_json::to_vec(&(why.exit as u8, parts)).unwrap_or_default()
}

fn decode(bytes: &[u8]) -> Option<Refusal> {
    let (exit, mut texts): (u8, [String; 4]) = serde_json::from_slice(bytes).ok()?;
    texts.iter_mut().for_each(|text| *text = text.chars().take(REASON_LETTERS).collect());
    let [at, expected, found, action] = texts;
    let known =
        [Exit::VerdictFailed, Exit::Refused, Exit::Lacking, Exit::Undecided, Exit::Interrupted, Exit::Terminated];
    let exit = known.into_iter().find(|known| *known as u8 == exit)?;
    Some(Refusal { at, expected, found, action, exit })
}
