//! Where replicas in other processes, on this machine or elsewhere, leave checkpoints for each other: a folder or a bucket.
//!
//! A replica leaves its parameters every few steps and reads the newest of each other one (Anil et al. 2018, arXiv
//! 1804.03235, §2.1: stale predictions do as well). Nobody waits, and nothing that is read is trusted: an object's name
//! has the hash of its bytes, its state the recipe and data that it belongs to, and its arrays must be those of that replica's
//! network. A name stands for the same bytes whenever it is written: objects are created, never changed. While the place does
//! not answer, trying takes a small part of a replica's time.
//!
//! The same recipe may be run again in the same place. So a checkpoint also says which start of its replica left it (one
//! that is resumed is the same start), and which starts of the others that one has heard: what answers to another start of
//! its reader than the present one is of an earlier run.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kd_runtime::error::Shown;
use kd_runtime::{Result, files};
use object_store::path::Path;

use super::left::{Asked, EARLIER, HASH, State, most_bytes, read, write};
use super::meeting::Snapshot;
use super::store::{Store, refuse};
use crate::exec::Parameter;

/// Of its own checkpoints a replica leaves so many: who reads one has time to.
const KEPT: usize = 3;
/// Letters of a start.
const START: usize = 16;
/// What went wrong for longer than this is not tried again in the same exchange.
const PATIENCE: Duration = Duration::from_secs(1);
/// And not before so many times as long.
const REST: u32 = 4;

/// A checkpoint as it is listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    step: u64,
    start: String,
    path: Path,
    bytes: u64,
}

/// Another replica.
struct Peer {
    /// From 1.
    replica: usize,
    /// The last one that was taken, and the start that left it.
    taken: Option<(String, u64)>,
    /// Starts before that one.
    past: BTreeSet<String>,
    snapshot: Option<Snapshot>,
    /// Names that were refused, and said to be.
    refused: BTreeSet<String>,
}

/// One replica's side of it.
pub struct Exchange {
    store: Store,
    run: String,
    /// From 1.
    me: usize,
    start: String,
    peers: Vec<Peer>,
    /// Its own checkpoints that are there, the oldest first; `None` until its folder could be read.
    own: Option<VecDeque<Path>>,
    /// Whether the last reading or writing failed: said once.
    fails: bool,
    /// When to try again.
    again: Option<Instant>,
}

/// A place and who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A folder, or the address of a bucket: `s3://…`, `gs://…`, `az://…`, `https://…` where those are built in.
    pub at: String,
    /// Its own number, from 1.
    pub me: usize,
    /// How many there are.
    pub replicas: usize,
}

/// Names a start of a replica: no other one has it.
pub fn new_start() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    files::sha256(format!("{} {}", std::process::id(), since.as_nanos()).as_bytes())[..START].to_string()
}

/// Whether a text may be what [`new_start`] gave.
pub fn is_start(text: &str) -> bool {
    text.len() == START && text.bytes().all(|letter| letter.is_ascii_hexdigit())
}

impl Exchange {
    /// Opens a place for a run; `part` tells its exchanges (one a seed) apart, `start` the starts of this replica: what others
    /// than this one have left goes away. A folder is made if it is missing. `must`: a place that does not answer is refused,
    /// as is always what is no place.
    pub fn open(place: &Place, run: &str, part: &str, start: &str, must: bool) -> Result<Self> {
        let peers = (1..=place.replicas).filter(|&replica| replica != place.me);
        let peer = |replica| {
            let (past, refused) = (BTreeSet::new(), BTreeSet::new());
            Peer { replica, taken: None, past, snapshot: None, refused }
        };
        let mut exchange = Self {
            store: Store::open(&place.at, part)?,
            run: run.to_string(),
            me: place.me,
            start: start.to_string(),
            peers: peers.map(peer).collect(),
            own: None,
            fails: false,
            again: None,
        };
        match exchange.clean_up() {
            Err(error) if must => Err(refuse(&place.at, "a place that can be read", error)),
            // The first exchange says it.
            _ => Ok(exchange),
        }
    }

    /// Removes what other starts of this replica have left, and finds what this one has: it goes first, also where it goes on from
    /// an earlier step.
    fn clean_up(&mut self) -> object_store::Result<()> {
        if self.own.is_none() {
            self.store.sweep(&home(self.me));
            let (own, others): (Vec<_>, Vec<_>) =
                self.list(self.me)?.into_iter().partition(|listed| listed.start == self.start);
            others.iter().for_each(|listed| self.store.remove(&listed.path));
            self.own = Some(own.into_iter().map(|listed| listed.path).collect());
        }
        Ok(())
    }

    /// A replica's checkpoints, by their steps.
    fn list(&self, replica: usize) -> object_store::Result<Vec<Listed>> {
        let known = |path: Path, bytes: u64| {
            let mut parts = path.filename()?.strip_suffix(".safetensors")?.split('-');
            let (step, start, hash) = (parts.next()?.parse().ok()?, parts.next()?.to_string(), parts.next()?);
            let is_one = is_start(&start) && hash.len() == HASH && parts.next().is_none();
            is_one.then_some(Listed { step, start, path, bytes })
        };
        let objects = self.store.list(&home(replica))?.into_iter();
        let mut found: Vec<Listed> = objects.filter_map(|object| known(object.path, object.bytes)).collect();
        found.sort();
        Ok(found)
    }

    /// Leaves the parameters of this step and looks for the others' newest; `networks` are those of the others, whose arrays
    /// theirs must be. Gives for each other replica what is new of it. What goes wrong is said, each thing once, and stops
    /// nothing.
    pub fn exchange(
        &mut self,
        step: u64,
        own: &[&Parameter<f32>],
        networks: &[&[Parameter<f32>]],
        note: &mut dyn FnMut(&str),
    ) -> Vec<Option<Snapshot>> {
        self.attempt(Some((step, own)), networks, note)
    }

    /// Looks for the others' newest as [`Exchange::exchange`] does, and leaves nothing.
    pub fn listen(&mut self, networks: &[&[Parameter<f32>]], note: &mut dyn FnMut(&str)) -> Vec<Option<Snapshot>> {
        self.attempt(None, networks, note)
    }

    fn attempt(
        &mut self,
        own: Option<(u64, &[&Parameter<f32>])>,
        networks: &[&[Parameter<f32>]],
        note: &mut dyn FnMut(&str),
    ) -> Vec<Option<Snapshot>> {
        let began = Instant::now();
        if self.again.is_some_and(|again| began < again) {
            return vec![None; self.peers.len()];
        }
        let left = own.map_or(Ok(()), |(step, own)| {
            self.leave(step, own).map_err(|error| format!("cannot leave step {step}: {error}"))
        });
        let (mut failure, mut new) = (left.err(), Vec::with_capacity(self.peers.len()));
        for (i, network) in networks.iter().enumerate().take(self.peers.len()) {
            if failure.is_some() && began.elapsed() > PATIENCE {
                new.push(None);
                continue;
            }
            match self.take(i, network, note) {
                Ok(snapshot) => new.push(snapshot),
                Err(error) => {
                    failure.get_or_insert_with(|| format!("cannot read replica {}: {error}", self.peers[i].replica));
                    new.push(None);
                }
            }
        }
        if let Some(why) = failure.as_ref().filter(|_| !self.fails) {
            note(&format!("exchange: {}; training goes on", Shown(why)));
        } else if self.fails && failure.is_none() {
            note("exchange: works again");
        }
        self.fails = failure.is_some();
        let took = Some(began.elapsed()).filter(|took| failure.is_some() && *took > PATIENCE);
        self.again = took.map(|took| Instant::now() + REST * took);
        new
    }

    /// Writes a checkpoint and removes the oldest.
    fn leave(&mut self, step: u64, parameters: &[&Parameter<f32>]) -> object_store::Result<()> {
        self.clean_up()?;
        let heard = |peer: &Peer| Some((peer.replica, peer.taken.as_ref()?.0.clone()));
        let (run, start) = (self.run.clone(), self.start.clone());
        let heard = self.peers.iter().filter_map(heard).collect();
        let bytes = write(&State::new(run, self.me, start, step, heard), parameters);
        let name = format!("{step:012}-{}-{}.safetensors", self.start, &files::sha256(&bytes)[..HASH]);
        // One that is late may still come: the folder is looked at again.
        let own = self.own.take();
        let path = self.store.put(&home(self.me), &name, bytes)?;
        let own = self.own.insert(own.unwrap_or_default());
        own.retain(|own| *own != path);
        own.push_back(path);
        while own.len() > KEPT {
            let Some(oldest) = own.pop_front() else { break };
            self.store.remove(&oldest);
        }
        Ok(())
    }

    /// The newest checkpoint of a peer that is newer than the last one taken, or of a new start, and that is sound.
    fn take(
        &mut self,
        i: usize,
        network: &[Parameter<f32>],
        note: &mut dyn FnMut(&str),
    ) -> object_store::Result<Option<Snapshot>> {
        let most = most_bytes(network, self.peers.len());
        let found = self.list(self.peers[i].replica)?;
        for Listed { step, start, path, bytes } in found.into_iter().rev() {
            let peer = &self.peers[i];
            let name = path.filename().unwrap_or_default().to_string();
            let is_known = peer.taken.as_ref().is_some_and(|(of, taken)| *of == start && step <= *taken);
            if is_known || peer.past.contains(&start) || peer.refused.contains(&name) {
                continue;
            }
            let asked =
                Asked { run: &self.run, replica: peer.replica, start: &start, step, reader: (self.me, &self.start) };
            let read = match bytes > most {
                true => Err(format!("expected at most {most} bytes, found {bytes}")),
                false => match self.store.get(&path, bytes)? {
                    Some(bytes) => read(&bytes, &name, &asked, network),
                    // Removed by its owner in between.
                    None => continue,
                },
            };
            let peer = &mut self.peers[i];
            match read {
                Ok(snapshot) => {
                    let snapshot = Arc::new(snapshot);
                    if let Some((before, _)) = peer.taken.replace((start.clone(), step)).filter(|(of, _)| *of != start)
                    {
                        peer.past.insert(before);
                    }
                    peer.snapshot = Some(Arc::clone(&snapshot));
                    return Ok(Some(snapshot));
                }
                Err(why) => {
                    // Of what an earlier run left, one is enough.
                    if why != EARLIER || !peer.refused.iter().any(|name| name.contains(&start)) {
                        note(&format!("replica {}: {} is left alone: {why}", peer.replica, Shown(&name)));
                    }
                    peer.refused.insert(name);
                }
            }
        }
        Ok(None)
    }

    /// For each other replica that was heard its number (from 1) and the steps by which what it said is older than `step`
    /// (negative: it is ahead).
    pub fn ages(&self, step: u64) -> Vec<(usize, f64)> {
        let age = |peer: &Peer| Some((peer.replica, step as f64 - peer.taken.as_ref()?.1 as f64));
        self.peers.iter().filter_map(age).collect()
    }

    /// For each other replica its number (from 1) and the last parameters that were taken of it.
    pub fn heard(&self) -> impl Iterator<Item = (usize, Option<&Snapshot>)> {
        self.peers.iter().map(|peer| (peer.replica, peer.snapshot.as_ref()))
    }
}

/// The folder of a replica's checkpoints.
fn home(replica: usize) -> String {
    format!("replica-{replica}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Role;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kd-exchange-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self, me: usize, run: &str) -> Exchange {
            Exchange::open(&self.place(me), run, "seed-1", &start(me), true).unwrap()
        }

        /// As [`Folder::open`], of another start.
        fn begin_anew(&self, me: usize) -> Exchange {
            Exchange::open(&self.place(me), "r", "seed-1", &new_start(), true).unwrap()
        }

        fn place(&self, me: usize) -> Place {
            Place { at: self.0.display().to_string(), me, replicas: 3 }
        }

        fn files(&self, replica: usize) -> Vec<std::path::PathBuf> {
            let folder = self.0.join(format!("seed-1/replica-{replica}"));
            let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    fn start(me: usize) -> String {
        format!("{me:016x}")
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn parameters(x: f32) -> Vec<Parameter<f32>> {
        let one = |name: &str, value: Vec<f32>| Parameter {
            name: name.into(),
            shape: vec![value.len()],
            role: Role::Weight,
            gradient: vec![0.0; value.len()].into(),
            value: value.into(),
        };
        vec![one("w", vec![x, 2.0 * x]), one("b", vec![-x])]
    }

    fn taken(new: &[Option<Snapshot>]) -> Vec<Option<f32>> {
        new.iter().map(|snapshot| snapshot.as_ref().map(|snapshot| snapshot[0].1[0])).collect()
    }

    /// An exchange between networks that are alike.
    fn meet(
        exchange: &mut Exchange,
        step: u64,
        own: &[Parameter<f32>],
        note: &mut dyn FnMut(&str),
    ) -> Vec<Option<Snapshot>> {
        exchange.exchange(step, &own.iter().collect::<Vec<_>>(), &[own, own], note)
    }

    #[test]
    fn replicas_of_two_architectures_take_what_fits_the_other_ones_network() {
        let folder = Folder::new("unlike");
        let mut quiet = |text: &str| panic!("{text}");
        let (small, large) = (
            parameters(1.0),
            [parameters(2.0), vec![Parameter { name: "v".into(), ..parameters(3.0).remove(0) }]].concat(),
        );
        let (mut one, mut two) = (folder.open(1, "r"), folder.open(2, "r"));
        let [own, other] = [&small, &large].map(|network| network.iter().collect::<Vec<_>>());
        one.exchange(0, &own, &[&large[..], &small], &mut quiet);
        assert_eq!(taken(&two.exchange(0, &other, &[&small[..], &small], &mut quiet)), [Some(1.0), None]);
        let heard = one.exchange(1, &own, &[&large[..], &small], &mut quiet).remove(0).unwrap();
        let names: Vec<&str> = heard.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, heard[2].1[0]), (vec!["w", "b", "v"], 3.0));
        // What the other one leaves is not of a network that is thought to be larger.
        let mut said = Vec::new();
        two.exchange(1, &other, &[&large[..], &small], &mut |text| said.push(text.to_string()));
        assert!(said.len() == 1 && said[0].contains("expected `v` [2], found another network"), "{said:?}");
    }

    #[test]
    fn each_takes_what_is_new_of_the_others_and_nobody_waits() {
        let folder = Folder::new("new");
        let mut quiet = |text: &str| panic!("{text}");
        let (mut one, mut two) = (folder.open(1, "r"), folder.open(2, "r"));
        assert_eq!(taken(&meet(&mut one, 0, &parameters(1.0), &mut quiet)), [None, None]);
        assert_eq!(taken(&meet(&mut two, 0, &parameters(2.0), &mut quiet)), [Some(1.0), None]);
        for step in 1..=5 {
            meet(&mut one, step, &parameters(1.0 + step as f32), &mut quiet);
        }
        assert_eq!(folder.files(1).len(), KEPT);
        assert_eq!(taken(&meet(&mut two, 2, &parameters(2.5), &mut quiet)), [Some(6.0), None]);
        assert_eq!(taken(&meet(&mut two, 3, &parameters(2.5), &mut quiet)), [None, None]);
        assert_eq!(two.ages(7), [(1, 2.0)]);
        assert_eq!(
            two.heard().map(|(replica, heard)| (replica, heard.is_some())).collect::<Vec<_>>(),
            [(1, true), (3, false)]
        );
        // Killed, and back at an older step: what it left before goes first.
        let mut back = folder.open(1, "r");
        for step in 2..=4 {
            meet(&mut back, step, &parameters(10.0), &mut quiet);
        }
        let left: Vec<_> =
            folder.files(1).iter().map(|p| p.file_name().unwrap().to_str().unwrap()[..12].to_string()).collect();
        assert_eq!(left, ["000000000002", "000000000003", "000000000004"]);
    }

    /// The same recipe twice in one place: nobody learns from the networks that the first run left.
    #[test]
    fn a_run_that_begins_anew_does_not_hear_the_one_before() {
        let folder = Folder::new("anew");
        let mut quiet = |text: &str| panic!("{text}");
        let (mut one, mut two) = (folder.open(1, "r"), folder.open(2, "r"));
        for step in 0..=100 {
            meet(&mut one, step, &parameters(1.0), &mut quiet);
            meet(&mut two, step, &parameters(2.0), &mut quiet);
        }
        drop((one, two));
        let (mut said, mut quiet) = (Vec::new(), |text: &str| panic!("{text}"));
        let mut one = folder.begin_anew(1);
        assert!(folder.files(1).is_empty(), "its own of before are gone");
        for step in 0..2 {
            let mut note = |text: &str| said.push(text.to_string());
            assert_eq!(taken(&meet(&mut one, step, &parameters(10.0), &mut note)), [None, None]);
        }
        assert!(said.len() == 1 && said[0].contains(EARLIER), "{said:?}");
        let mut two = folder.begin_anew(2);
        assert_eq!(taken(&meet(&mut two, 0, &parameters(20.0), &mut quiet)), [Some(10.0), None]);
        assert_eq!(taken(&meet(&mut one, 2, &parameters(11.0), &mut quiet)), [Some(20.0), None]);
        // One that has lost its folder begins at step 0, and is heard at once; what it leaves next, too.
        let mut two = folder.begin_anew(2);
        meet(&mut one, 3, &parameters(12.0), &mut quiet);
        two.exchange(0, &parameters(30.0).iter().collect::<Vec<_>>(), &[&parameters(0.0)[..]; 2], &mut |_| ());
        assert_eq!(taken(&meet(&mut one, 4, &parameters(13.0), &mut quiet)), [Some(30.0), None]);
        assert_eq!(one.ages(4), [(2, 4.0)]);
        // And hears the other one once that answers to it.
        meet(&mut one, 5, &parameters(14.0), &mut quiet);
        assert_eq!(taken(&meet(&mut two, 1, &parameters(31.0), &mut |_| ())), [Some(14.0), None]);
        assert_eq!(taken(&one.listen(&[&parameters(0.0)[..]; 2], &mut quiet)), [Some(31.0), None]);
    }

    #[test]
    fn what_is_damaged_or_of_another_run_is_said_once_and_harms_nobody() {
        let folder = Folder::new("damaged");
        let mut quiet = |text: &str| panic!("{text}");
        let mut one = folder.open(1, "r");
        meet(&mut folder.open(2, "r"), 4, &parameters(2.0), &mut quiet);
        meet(&mut folder.open(3, "another"), 4, &parameters(3.0), &mut |_| ());
        let whole = folder.files(2).remove(0);
        let bytes = std::fs::read(&whole).unwrap();
        let newer = |step: u64, bytes: &[u8]| {
            let name = whole.file_name().unwrap().to_str().unwrap();
            std::fs::write(whole.with_file_name(format!("{step:012}{}", &name[12..])), bytes).unwrap();
        };
        newer(5, &bytes[..bytes.len() - 3]);
        let mut flipped = bytes.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        newer(6, &flipped);
        newer(7, &bytes);
        newer(8, &vec![0; 1 << 20]);
        newer(9, &[]);
        std::fs::write(whole.with_file_name("notes.txt"), b"hello").unwrap();
        let mut said = Vec::new();
        let new = meet(&mut one, 1, &parameters(1.0), &mut |text| said.push(text.to_string()));
        assert_eq!(taken(&new), [Some(2.0), None]);
        assert_eq!(said.len(), 6, "{said:?}");
        for (line, part) in said.iter().zip(["hash", "at most", "start and step", "hash", "hash", "recipe and data"]) {
            assert!(line.contains(part) && !line.contains('\n'), "{part}: {line}");
        }
        let mut quiet = |text: &str| panic!("{text}");
        assert_eq!(taken(&meet(&mut one, 2, &parameters(1.0), &mut quiet)), [None, None]);
        // A place that goes away is said once, and once that it is back.
        let (away, mut said) = (folder.0.with_extension("away"), Vec::new());
        std::fs::rename(&folder.0, &away).unwrap();
        std::fs::write(&folder.0, b"").unwrap();
        for step in 3..5 {
            meet(&mut one, step, &parameters(1.0), &mut |text| said.push(text.to_string()));
        }
        assert!(said.len() == 1 && said[0].contains("training goes on"), "{said:?}");
        std::fs::remove_file(&folder.0).unwrap();
        std::fs::rename(&away, &folder.0).unwrap();
        meet(&mut one, 5, &parameters(1.0), &mut |text| said.push(text.to_string()));
        assert!(said.len() == 2 && said[1].contains("works again"), "{said:?}");
        // After a failure that took long it rests.
        one.again = Some(Instant::now() + Duration::from_secs(3600));
        let before = folder.files(1);
        assert_eq!(taken(&meet(&mut one, 6, &parameters(1.0), &mut |text| panic!("{text}"))), [None, None]);
        assert_eq!(folder.files(1), before);
        one.again = Some(Instant::now());
        meet(&mut one, 6, &parameters(1.0), &mut |text| panic!("{text}"));
        assert_ne!(folder.files(1), before);
        // What a kill left half written goes when the replica comes back.
        std::fs::write(folder.0.join("seed-1/replica-1/000000000006.safetensors#1"), b"half").unwrap();
        let back = folder.open(1, "r");
        assert!(folder.files(1).len() == KEPT && back.again.is_none());
    }

    /// A pipe that nobody writes to stands for a folder that hangs.
    #[test]
    fn a_place_that_does_not_answer_takes_a_bounded_time_and_then_rests() {
        let folder = Folder::new("hangs");
        let mut one = folder.open(1, "r");
        meet(&mut one, 1, &parameters(1.0), &mut |text| panic!("{text}"));
        let pipe = folder.0.join("seed-1/replica-2");
        std::fs::create_dir_all(&pipe).unwrap();
        let pipe = pipe.join(format!("000000000001-{}-{}.safetensors", start(2), "0".repeat(HASH)));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        one.store.most = Duration::from_millis(1100);
        let mut said = Vec::new();
        for step in 2..5 {
            assert_eq!(
                taken(&meet(&mut one, step, &parameters(1.0), &mut |text| said.push(text.to_string()))),
                [None, None]
            );
        }
        assert!(
            said.len() == 1 && said[0].contains("replica 2") && said[0].contains("no answer within 1 s"),
            "{said:?}"
        );
        assert!(one.again.is_some_and(|again| again > Instant::now()) && folder.files(1).len() == 2);
        // Nor does who leaves wait for it.
        drop(one);
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        for at in ["gopher://x", "/proc/none/here", "file:///dev/null/x"] {
            let place = Place { at: at.into(), me: 1, replicas: 2 };
            let error =
                Exchange::open(&place, "r", "seed-1", &start(1), true).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                error.starts_with(&format!("--exchange {at}: expected ")) && !error.contains('\n'),
                "{at}: {error}"
            );
        }
    }
}
