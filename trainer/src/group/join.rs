//! How processes find each other: rank 0 listens, the others come, and all that must be the same is compared before
//! anything else is read. Whoever is no `kd-train` is sent away; one that does not fit ends the start of all.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kd_runtime::error::Exit;
use kd_runtime::{Refusal, Result};
use sha2::{Digest, Sha256};

use super::fate::Fate;
use super::launch::Launch;
use super::link::{BEAT, Link};
use super::{Group, Overdue};
use crate::run::signals::Stop;

const MAGIC: [u8; 8] = *b"kd-ranks";
/// Of what is said from here on.
const PROTOCOL: u32 = 1;
/// How long one that connected may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);

/// What this process is part of.
pub struct Join<'a> {
    /// Which of all processes this is.
    pub launch: &'a Launch,
    /// What must be the same on all ranks before they talk: what it is, and its value here.
    pub same: [(&'static str, String); 3],
    /// What a user does after a rank was lost.
    pub go_on: String,
    /// Asked while it waits.
    pub stop: &'a Stop,
    /// Ends the program where its main thread does not.
    pub overdue: Overdue,
}

/// What each side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    protocol: u32,
    rank: u32,
    of: u32,
    same: [[u8; 32]; 3],
}

const HELLO_BYTES: usize = 8 + 3 * 4 + 3 * 32;

impl Hello {
    fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.protocol, self.rank, self.of].into_iter().flat_map(u32::to_le_bytes);
        MAGIC.into_iter().chain(numbers).chain(self.same.into_iter().flatten()).collect()
    }

    /// None where it is no hello.
    fn of_bytes(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (numbers, hashes) = rest.split_first_chunk::<12>()?;
        let [protocol, rank, of] =
            std::array::from_fn(|i| numbers.as_chunks::<4>().0.get(i).map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        let same = std::array::from_fn(|i| hashes.as_chunks::<32>().0.get(i).copied().unwrap_or_default());
        (*magic == MAGIC).then_some(Self { protocol, rank, of, same })
    }

    /// Waits for one until a moment, or until it is stopped; none where the other side says something else.
    fn read(mut stream: &TcpStream, until: Instant, is_stopped: &dyn Fn() -> bool) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; HELLO_BYTES];
        let mut have = 0;
        while have < HELLO_BYTES {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            if is_stopped() {
                return Err(ErrorKind::Interrupted.into());
            }
            stream.set_read_timeout(Some(left.min(LOOK)))?;
            match stream.read(&mut bytes[have..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => have += n,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(error) => return Err(error),
            }
            // Who says something else needs not be waited for.
            let seen = have.min(MAGIC.len());
            if bytes[..seen] != MAGIC[..seen] {
                return Ok(None);
            }
        }
        Ok(Self::of_bytes(&bytes))
    }
}

impl Join<'_> {
    /// Joins the others. Remarks go to `note`. An error if they do not come in time or do not fit.
    pub fn join(self, note: &mut dyn FnMut(&str)) -> Result<Group> {
        let fate = Arc::new(Fate::new(self.go_on.clone()));
        let until = Instant::now() + self.launch.wait;
        let links = match self.launch.rank {
            0 => self.lead(&self.listen()?, until, &fate, note)?,
            _ => vec![self.follow(until, &fate)?],
        };
        let Self { launch, stop, overdue, .. } = self;
        let group = Group::new(launch.rank, launch.of, links, fate, stop, overdue)?;
        // Rank 0 answers when all have come.
        match group.gather(&[]) {
            Ok(_) => Ok(group),
            Err(why) => Err(group.end(why)),
        }
    }

    fn hello(&self) -> Hello {
        let Launch { rank, of, .. } = *self.launch;
        let same = std::array::from_fn(|i| Sha256::digest(&self.same[i].1).into());
        Hello { protocol: PROTOCOL, rank: rank as u32, of: of as u32, same }
    }

    fn place(&self) -> String {
        format!("{}:{}", self.launch.host, self.launch.port)
    }

    fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        Ok((self.launch.host.as_str(), self.launch.port).to_socket_addrs()?.collect())
    }

    fn listen(&self) -> Result<TcpListener> {
        // A machine often calls itself 127.0.1.1, where no other one finds it: a name is not looked up here.
        let is_name = self.launch.host != "localhost" && self.launch.host.parse::<IpAddr>().is_err();
        let all = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
        let all = || all.map(|address| SocketAddr::new(address, self.launch.port)).to_vec();
        let addresses = if is_name { Ok(all()) } else { self.addresses() };
        let bound = addresses.and_then(|addresses| TcpListener::bind(&addresses[..]));
        bound.map_err(|error| {
            let action = match error.kind() {
                ErrorKind::AddrInUse => "choose another MASTER_PORT, or end who listens there",
                _ => "let MASTER_ADDR name the machine of rank 0",
            };
            Refusal::new(self.place(), "a port to listen on, as rank 0", error, action).with_exit(Exit::Lacking)
        })
    }

    /// Takes in all other ranks.
    fn lead(
        &self,
        listener: &TcpListener,
        until: Instant,
        fate: &Arc<Fate>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Vec<Link>> {
        let failed = |error: Error| Refusal::new(self.place(), "connections", error, "choose another MASTER_PORT");
        listener.set_nonblocking(true).map_err(failed)?;
        let mut links: Vec<Option<Link>> = (1..self.launch.of).map(|_| None).collect();
        let mut beat = Instant::now();
        while links.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, address)) => match self.take(stream, &mut links, fate) {
                    Err(Stranger::Else(found)) => note(&format!("{address} is sent away: {found}")),
                    Err(Stranger::Misfit(why)) => drop(fate.end(why)),
                    Ok(()) => {}
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(LOOK),
                Err(error) => return Err(failed(error).with_exit(Exit::Lacking)),
            }
            if beat.elapsed() >= BEAT {
                links.iter().flatten().for_each(Link::beat);
                beat = Instant::now();
            }
            let late = || self.late(&links);
            let why = fate.ended().or_else(|| self.asked()).or_else(|| (Instant::now() > until).then(late));
            if let Some(why) = why {
                links.iter().flatten().for_each(|link| link.tell(&why));
                return Err(why);
            }
        }
        Ok(links.into_iter().flatten().collect())
    }

    fn late(&self, links: &[Option<Link>]) -> Refusal {
        let missing = (1..self.launch.of).zip(links).filter(|(_, link)| link.is_none());
        let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
        let expected = format!("{} processes within {} s", self.launch.of, self.launch.wait.as_secs());
        let found = format!("none of rank {}", missing.join(", "));
        let action = "start one for each rank, or wait longer with KD_JOIN_S";
        Refusal::new(self.place(), expected, found, action).with_exit(Exit::Lacking)
    }

    fn asked(&self) -> Option<Refusal> {
        let (signal, exit) = self.stop.asked()?;
        Some(Refusal::new("group", "all ranks to come", signal, "start all again").with_exit(exit))
    }

    /// Takes in one that has connected.
    fn take(
        &self,
        stream: TcpStream,
        links: &mut [Option<Link>],
        fate: &Arc<Fate>,
    ) -> std::result::Result<(), Stranger> {
        let stranger = |error: Error| Stranger::Else(error.to_string());
        stream.set_nonblocking(false).map_err(stranger)?;
        let Some(theirs) = Hello::read(&stream, Instant::now() + HELLO, &|| false).map_err(stranger)? else {
            return Err(Stranger::Else("it is no kd-train".into()));
        };
        let mine = self.hello();
        (&stream).write_all(&mine.to_bytes()).map_err(stranger)?;
        self.compare(&theirs, &mine, false)
            .map_err(|why| Stranger::Misfit(Refusal { at: format!("rank {}: {}", theirs.rank, why.at), ..why }))?;
        let rank = theirs.rank as usize;
        let found = match rank.checked_sub(1).and_then(|i| links.get_mut(i)) {
            Some(place @ None) => {
                *place = Some(Link::start(rank, stream, fate).map_err(stranger)?);
                return Ok(());
            }
            Some(_) => format!("a second rank {rank}"),
            None => format!("rank {rank}"),
        };
        let why = Refusal::new("RANK", format!("each of 1 to {} once", links.len()), found, "give each its own");
        let why = fate.end(why);
        // It would wait for ever.
        if let Ok(link) = Link::start(rank, stream, fate) {
            link.tell(&why);
        }
        Err(Stranger::Misfit(why))
    }

    /// Finds rank 0, which may not be there yet.
    fn follow(&self, until: Instant, fate: &Arc<Fate>) -> Result<Link> {
        let mut found = Error::from(ErrorKind::TimedOut);
        loop {
            if let Some(why) = self.asked() {
                return Err(why);
            }
            if Instant::now() > until {
                let expected = format!("rank 0 to listen within {} s", self.launch.wait.as_secs());
                let action = "start it, let MASTER_ADDR and MASTER_PORT name it, or wait longer with KD_JOIN_S";
                return Err(Refusal::new(self.place(), expected, found, action).with_exit(Exit::Lacking));
            }
            match self.greet(until) {
                Ok((stream, Some(theirs))) => {
                    self.compare(&self.hello(), &theirs, true)?;
                    return Link::start(0, stream, fate).map_err(|error| fate.lost(0, &error));
                }
                Ok((_, None)) => {
                    let action = "let MASTER_ADDR and MASTER_PORT name it";
                    return Err(Refusal::new(self.place(), "rank 0 of kd-train", "another program", action));
                }
                Err(error) => found = error,
            }
            sleep(RETRY);
        }
    }

    fn greet(&self, until: Instant) -> std::io::Result<(TcpStream, Option<Hello>)> {
        let mut last = Error::from(ErrorKind::AddrNotAvailable);
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, HELLO) {
                Ok(mut stream) => {
                    stream.write_all(&self.hello().to_bytes())?;
                    let hello = Hello::read(&stream, until, &|| self.asked().is_some())?;
                    return Ok((stream, hello));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Refuses a rank that is not as rank 0; `me`: whether it is this one.
    fn compare(&self, rank: &Hello, first: &Hello, me: bool) -> Result<()> {
        let who = if me { "this one's" } else { "its own" };
        let numbers = [("protocol", rank.protocol, first.protocol), ("WORLD_SIZE", rank.of, first.of)];
        if let Some((what, found, expected)) = numbers.into_iter().find(|(_, found, expected)| found != expected) {
            let action = "start the same program for all ranks";
            return Err(Refusal::new(what, format!("{expected}, as rank 0 has"), found, action));
        }
        let names = self.same.iter().map(|(what, _)| *what);
        if let Some((what, _)) = names.zip(rank.same.iter().zip(&first.same)).find(|(_, (a, b))| a != b) {
            let hex = |hash: &[u8; 32]| hash[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let i = self.same.iter().position(|(known, _)| *known == what).unwrap_or(0);
            let expected = format!("that of rank 0 ({}…)", hex(&first.same[i]));
            let found = format!("{who} ({}…)", hex(&rank.same[i]));
            return Err(Refusal::new(what, expected, found, "give all ranks the same"));
        }
        Ok(())
    }
}

/// Who is not taken in.
enum Stranger {
    /// Something that is no rank: it is sent away.
    Else(String),
    /// A rank that does not fit: the run cannot begin.
    Misfit(Refusal),
}
