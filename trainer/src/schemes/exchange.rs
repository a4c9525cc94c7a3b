//! Where replicas in other processes, on this machine or elsewhere, leave checkpoints for each other: a folder or a bucket.
//!
//! A replica leaves its parameters every few steps and reads the newest of each other one (Anil et al. 2018, arXiv
//! 1804.03235, §2.1: stale predictions do as well). Nobody waits, and nothing that is read is trusted: an object's name
//! has the hash of its bytes, its state the recipe and data that it belongs to, and its arrays must be those of that replica's
//! network. A name stands for the same bytes wherever it is written: replacing harms nobody, and a store need not know how
//! to create without it (WebDAV does not).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kd_runtime::error::{Exit, Shown};
use kd_runtime::{Refusal, Result, files};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::meeting::Snapshot;
use crate::exec::Parameter;

/// The value of `schema`.
const SCHEMA: &str = "kd.replica/1";
/// Of its own checkpoints a replica leaves so many: who reads one has time to.
const KEPT: usize = 3;
/// Letters of the hash in a name.
const HASH: usize = 32;

/// What a checkpoint says of itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    schema: String,
    /// Ties it to a recipe and its data.
    run: String,
    /// From 1.
    replica: usize,
    step: u64,
}

/// Another replica.
struct Peer {
    /// From 1.
    replica: usize,
    /// The last one that was taken.
    step: Option<u64>,
    snapshot: Option<Snapshot>,
    /// Names that were refused, and said to be.
    refused: BTreeSet<String>,
}

/// One replica's side of it.
pub struct Exchange {
    store: Box<dyn ObjectStore>,
    folder: Path,
    runtime: Runtime,
    run: String,
    /// From 1.
    me: usize,
    peers: Vec<Peer>,
    /// Its own checkpoints that are there, the oldest first.
    own: VecDeque<Path>,
    /// Whether the last reading or writing failed: said once.
    fails: bool,
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

fn refuse(at: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Refusal {
    Refusal::new(format!("--exchange {at}"), expected, found, "name a folder or bucket that can be written")
}

impl Exchange {
    /// Opens a place for a run; `part` tells its exchanges (one a seed) apart. A folder is made if it is missing.
    pub fn open(place: &Place, run: &str, part: &str) -> Result<Self> {
        let at = &place.at;
        let is_address = at.contains("://");
        let url = if is_address {
            Url::parse(at).map_err(|error| refuse(at, "a folder or an address", error))?
        } else {
            std::fs::create_dir_all(at).map_err(|error| refuse(at, "a folder that can be made", error))?;
            let whole = std::fs::canonicalize(at).map_err(|error| refuse(at, "a folder", error))?;
            Url::from_directory_path(&whole).map_err(|()| refuse(at, "a folder with an absolute path", "another"))?
        };
        let variables =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let options = variables.map(|(key, value)| (key.to_ascii_lowercase(), value));
        let known = if cfg!(feature = "cloud") {
            "a folder or an address of file, s3, gs, az or http"
        } else {
            "a folder (buckets need a build with --features cloud)"
        };
        let (store, folder) = object_store::parse_url_opts(&url, options).map_err(|error| refuse(at, known, error))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refuse(at, "a thread for it", error).with_exit(Exit::Lacking))?;
        let peers = (1..=place.replicas).filter(|&replica| replica != place.me);
        let peer = |replica| Peer { replica, step: None, snapshot: None, refused: BTreeSet::new() };
        let mut exchange = Self {
            store,
            folder: folder.join(part),
            runtime,
            run: run.to_string(),
            me: place.me,
            peers: peers.map(peer).collect(),
            own: VecDeque::new(),
            fails: false,
        };
        // What this replica left before it was killed is older than all that it will leave.
        let left = exchange.list(place.me).map_err(|error| refuse(at, "a place that can be read", error))?;
        exchange.own = left.into_iter().map(|(_, path, _)| path).collect();
        Ok(exchange)
    }

    fn home(&self, replica: usize) -> Path {
        self.folder.clone().join(format!("replica-{replica}"))
    }

    /// Steps, names and sizes of a replica's checkpoints, by name.
    fn list(&self, replica: usize) -> object_store::Result<Vec<(u64, Path, u64)>> {
        let home = self.home(replica);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&home)))?;
        let step = |path: &Path| -> Option<u64> {
            let (step, hash) = path.filename()?.strip_suffix(".safetensors")?.split_once('-')?;
            (hash.len() == HASH).then(|| step.parse().ok()).flatten()
        };
        let mut found: Vec<(u64, Path, u64)> = (listed.objects.into_iter())
            .filter_map(|object| Some((step(&object.location)?, object.location, object.size)))
            .collect();
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
        let outcome = self.leave(step, own);
        let mut failure = outcome.err().map(|error| format!("cannot leave step {step}: {error}"));
        let mut new = Vec::with_capacity(self.peers.len());
        for (i, network) in networks.iter().enumerate().take(self.peers.len()) {
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
        new
    }

    /// Writes a checkpoint and removes the oldest.
    fn leave(&mut self, step: u64, parameters: &[&Parameter<f32>]) -> object_store::Result<()> {
        let bytes = write(&State { schema: SCHEMA.into(), run: self.run.clone(), replica: self.me, step }, parameters);
        let hash = &files::sha256(&bytes)[..HASH];
        let path = self.home(self.me).join(format!("{step:012}-{hash}.safetensors"));
        self.runtime.block_on(self.store.put(&path, bytes.into()))?;
        self.own.retain(|own| *own != path);
        self.own.push_back(path);
        while self.own.len() > KEPT {
            let Some(oldest) = self.own.pop_front() else { break };
            // Somebody else may have cleaned up.
            let _ = self.runtime.block_on(self.store.delete(&oldest));
        }
        Ok(())
    }

    /// The newest checkpoint of a peer that is newer than the last one taken and that is sound.
    fn take(
        &mut self,
        i: usize,
        network: &[Parameter<f32>],
        note: &mut dyn FnMut(&str),
    ) -> object_store::Result<Option<Snapshot>> {
        let most = most_bytes(network);
        let found = self.list(self.peers[i].replica)?;
        for (step, path, bytes) in found.into_iter().rev() {
            let peer = &self.peers[i];
            let name = path.filename().unwrap_or_default().to_string();
            if peer.step.is_some_and(|taken| step <= taken) {
                break;
            }
            if peer.refused.contains(&name) {
                continue;
            }
            let read = match bytes > most {
                true => Err(format!("expected at most {most} bytes, found {bytes}")),
                false => match self.runtime.block_on(async { self.store.get(&path).await?.bytes().await }) {
                    Ok(bytes) => read(&bytes, &name, &self.run, peer.replica, step, network),
                    // Removed by its owner in between.
                    Err(object_store::Error::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            let peer = &mut self.peers[i];
            match read {
                Ok(snapshot) => {
                    let snapshot = Arc::new(snapshot);
                    (peer.step, peer.snapshot) = (Some(step), Some(Arc::clone(&snapshot)));
                    return Ok(Some(snapshot));
                }
                Err(why) => {
                    note(&format!("replica {}: {} is left alone: {why}", peer.replica, Shown(&name)));
                    peer.refused.insert(name);
                }
            }
        }
        Ok(None)
    }

    /// For each other replica that was heard its number (from 1) and the steps by which what it said is older than `step`
    /// (negative: it is ahead).
    pub fn ages(&self, step: u64) -> Vec<(usize, f64)> {
        let age = |peer: &Peer| Some((peer.replica, step as f64 - peer.step? as f64));
        self.peers.iter().filter_map(age).collect()
    }

    /// For each other replica its number (from 1) and the last parameters that were taken of it.
    pub fn heard(&self) -> impl Iterator<Item = (usize, Option<&Snapshot>)> {
        self.peers.iter().map(|peer| (peer.replica, peer.snapshot.as_ref()))
    }
}

/// What a checkpoint of a network may take: its arrays, what the file says of each, and a state.
fn most_bytes(network: &[Parameter<f32>]) -> u64 {
    let array = |p: &Parameter<f32>| size_of_val(&p.value[..]) + 2 * p.name.len() + 24 * p.shape.len() + 256;
    (4096 + network.iter().map(array).sum::<usize>()) as u64
}

fn write(state: &State, parameters: &[&Parameter<f32>]) -> Vec<u8> {
    let arrays: Vec<Vec<u8>> =
        parameters.iter().map(|p| p.value.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = parameters.iter().zip(&arrays).map(|(p, bytes)| {
        let view =
            TensorView::new(Dtype::F32, p.shape.clone(), bytes).expect("a parameter has the elements of its shape");
        (p.name.as_str(), view)
    });
    let text = serde_json::to_string(state).expect("texts and whole numbers");
    serialize(views, Some(HashMap::from([("state".to_string(), text)]))).expect("arrays of the sizes that they say")
}

/// The parameters of a replica's network, or in one line why not.
fn read(
    bytes: &[u8],
    name: &str,
    run: &str,
    replica: usize,
    step: u64,
    network: &[Parameter<f32>],
) -> std::result::Result<Vec<(String, Vec<f32>)>, String> {
    if !name.contains(&files::sha256(bytes)[..HASH]) {
        return Err("expected bytes with the hash of its name, found others (damaged, or cut off)".into());
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get("state"));
    let state: State = serde_json::from_str(state.ok_or("expected a state, found none")?).map_err(|e| e.to_string())?;
    let expected = State { schema: SCHEMA.into(), run: run.into(), replica, step };
    if state != expected {
        let what = if state.run == expected.run { "the replica and step of its name" } else { "this recipe and data" };
        return Err(format!("expected {what}, found others"));
    }
    let one = |p: &Parameter<f32>| {
        let view = file.tensor(&p.name).ok().filter(|view| view.dtype() == Dtype::F32 && view.shape() == p.shape);
        let view = view.ok_or_else(|| format!("expected `{}` {:?}, found another network", p.name, p.shape))?;
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match values.iter().find(|x| !x.is_finite()) {
            Some(x) => Err(format!("expected finite numbers in `{}`, found {x}", p.name)),
            None => Ok((p.name.clone(), values)),
        }
    };
    network.iter().map(one).collect()
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
            let place = Place { at: self.0.display().to_string(), me, replicas: 3 };
            Exchange::open(&place, run, "seed-1").unwrap()
        }

        fn files(&self, replica: usize) -> Vec<std::path::PathBuf> {
            let folder = self.0.join(format!("seed-1/replica-{replica}"));
            let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            files
        }
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
        for (line, part) in said.iter().zip(["hash", "at most", "replica and step", "hash", "hash", "recipe and data"])
        {
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
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        for at in ["gopher://x", "/proc/none/here", "file:///dev/null/x"] {
            let place = Place { at: at.into(), me: 1, replicas: 2 };
            let error = Exchange::open(&place, "r", "seed-1").err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                error.starts_with(&format!("--exchange {at}: expected ")) && !error.contains('\n'),
                "{at}: {error}"
            );
        }
    }
}
