//! What a replica leaves for the others: its parameters, and a state that says whose they are. Nothing is trusted before all of
//! it is checked.

use std::collections::{BTreeMap, HashMap};

use kd_runtime::files;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use crate::exec::Parameter;

/// The value of `schema`.
const SCHEMA: &str = "kd.replica/2";
/// Letters of the hash in a name.
pub const HASH: usize = 32;
/// Why a checkpoint of an earlier run is left alone.
pub const EARLIER: &str = "it answers to an earlier start of this replica";

/// What a checkpoint says of itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    schema: String,
    /// Ties it to a recipe and its data.
    run: String,
    /// From 1.
    replica: usize,
    /// Which start of it.
    start: String,
    step: u64,
    /// The starts of the others that it has heard, by their numbers.
    heard: BTreeMap<usize, String>,
}

impl State {
    /// Of step `step` of a start of a replica (from 1) in a run; `heard`: the starts of the others that it has heard.
    pub fn new(run: String, replica: usize, start: String, step: u64, heard: BTreeMap<usize, String>) -> Self {
        Self { schema: SCHEMA.into(), run, replica, start, step, heard }
    }
}

/// What a checkpoint of a network may take: its arrays, what the file says of each, and a state.
pub fn most_bytes(network: &[Parameter<f32>], peers: usize) -> u64 {
    let array = |p: &Parameter<f32>| size_of_val(&p.value[..]) + 2 * p.name.len() + 24 * p.shape.len() + 256;
    (4096 + 64 * peers + network.iter().map(array).sum::<usize>()) as u64
}

/// The bytes of a checkpoint.
pub fn write(state: &State, parameters: &[&Parameter<f32>]) -> Vec<u8> {
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

/// What a checkpoint must say of itself.
pub struct Asked<'a> {
    /// What ties it to a recipe and its data.
    pub run: &'a str,
    /// From 1.
    pub replica: usize,
    /// Which start of it.
    pub start: &'a str,
    /// Its step.
    pub step: u64,
    /// Number and start of who reads it.
    pub reader: (usize, &'a str),
}

/// The parameters of a replica's network, or in one line why not.
pub fn read(
    bytes: &[u8],
    name: &str,
    asked: &Asked<'_>,
    network: &[Parameter<f32>],
) -> std::result::Result<Vec<(String, Vec<f32>)>, String> {
    if !name.contains(&files::sha256(bytes)[..HASH]) {
        return Err("expected bytes with the hash of its name, found others (damaged, or cut off)".into());
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get("state"));
    let state: State = serde_json::from_str(state.ok_or("expected a state, found none")?).map_err(|e| e.to_string())?;
    if state.schema != SCHEMA || state.run != asked.run {
        return Err("expected this recipe and data, found others".into());
    }
    if (state.replica, &*state.start, state.step) != (asked.replica, asked.start, asked.step) {
        return Err("expected the replica, start and step of its name, found others".into());
    }
    let (me, start) = asked.reader;
    if state.heard.get(&me).is_some_and(|heard| heard != start) {
        return Err(EARLIER.into());
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
