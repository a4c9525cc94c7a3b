//! The state of one network's training in one file that is replaced whole: parameters, those of the selected epoch, what
//! steps them, and the history; with a hash over all of it, and tied to what it belongs to by a fingerprint.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use kd_runtime::{Refusal, Result, files};
use safetensors::tensor::{Dtype, SafeTensors, View, serialize};
use serde::{Deserialize, Serialize};

use super::fit::Epoch;
use crate::exec::Parameter;
use crate::optim::stepper::Stepper;

/// The value of `schema`. In version 1 optimizers counted the steps of all parameters at once.
const SCHEMA: &str = "kd.checkpoint/2";

/// Where training is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// A line for each epoch that is done.
    pub history: Vec<Epoch>,
    /// The selected epoch, from 1; 0 before the first one.
    pub selected_epoch: usize,
    /// Values of the parameters (statistics too) after the selected epoch.
    pub selected: Vec<Vec<f32>>,
    /// Whether no epoch follows.
    pub finished: bool,
}

/// What the metadata hold.
#[derive(Serialize, Deserialize)]
struct State {
    schema: String,
    fingerprint: String,
    history: Vec<Epoch>,
    selected_epoch: usize,
    finished: bool,
    /// Over all tensors in the order of their names, and the rest of the state.
    sha256: String,
}

struct Floats<'a>(&'a [f32], [usize; 1]);

impl<'a> Floats<'a> {
    fn new(values: &'a [f32]) -> Self {
        Self(values, [values.len()])
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }
}

impl View for Floats<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.bytes())
    }
    fn data_len(&self) -> usize {
        4 * self.0.len()
    }
}

/// All arrays by name.
fn arrays<'a>(
    parameters: &'a [Parameter<f32>],
    stepper: &'a Stepper,
    selected: &'a [Vec<f32>],
) -> BTreeMap<String, Floats<'a>> {
    let present = parameters.iter().map(|p| (format!("parameter/{}", p.name), Floats::new(&p.value)));
    let best = parameters.iter().zip(selected).map(|(p, v)| (format!("selected/{}", p.name), Floats::new(v)));
    let state = stepper.state().into_iter().map(|(name, v)| (format!("optimizer/{name}"), Floats::new(v)));
    present.chain(best).chain(state).collect()
}

/// Of the tensors and of all of the state but the hash itself.
fn sha256<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>,
    state: &mut State,
) -> Result<String> {
    state.sha256.clear();
    let mut all = text(path, state)?.into_bytes();
    for (name, bytes) in tensors {
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(&bytes);
    }
    Ok(files::sha256(&all))
}

fn text(path: &Path, state: &State) -> Result<String> {
    serde_json::to_string(state).map_err(|error| refuse(path, "a state that can be written", error))
}

/// Replaces the checkpoint; the old one stays if that fails.
pub fn write(
    path: &Path,
    fingerprint: &str,
    parameters: &[Parameter<f32>],
    stepper: &Stepper,
    progress: &Progress,
) -> Result<()> {
    files::write_atomic(path, &encode(path, fingerprint, parameters, stepper, progress)?)
}

/// What [`write()`] writes; `path` is what a refusal calls it.
pub fn encode(
    path: &Path,
    fingerprint: &str,
    parameters: &[Parameter<f32>],
    stepper: &Stepper,
    progress: &Progress,
) -> Result<Vec<u8>> {
    let arrays = arrays(parameters, stepper, &progress.selected);
    let mut state = State {
        schema: SCHEMA.into(),
        fingerprint: fingerprint.into(),
        history: progress.history.clone(),
        selected_epoch: progress.selected_epoch,
        finished: progress.finished,
        sha256: String::new(),
    };
    state.sha256 = sha256(path, arrays.iter().map(|(name, floats)| (name.as_str(), floats.data())), &mut state)?;
    let bytes = serialize(arrays, Some(HashMap::from([("state".to_string(), text(path, &state)?)])));
    bytes.map_err(|error| refuse(path, "tensors that can be written", error))
}

fn refuse(path: &Path, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Refusal {
    Refusal::new(path.display(), expected, found, "remove it to train this network again from the start")
}

/// Reads a checkpoint into the parameters and the stepper, all or nothing. Refuses a damaged one, and one of another
/// fingerprint.
pub fn read(
    path: &Path,
    fingerprint: &str,
    parameters: &mut [Parameter<f32>],
    stepper: &mut Stepper,
) -> Result<Progress> {
    decode(path, &files::read(path)?, fingerprint, parameters, stepper)
}

/// The same of a checkpoint's bytes; `path` is what a refusal calls them.
pub fn decode(
    path: &Path,
    bytes: &[u8],
    fingerprint: &str,
    parameters: &mut [Parameter<f32>],
    stepper: &mut Stepper,
) -> Result<Progress> {
    let whole = "a whole checkpoint";
    let file = SafeTensors::deserialize(bytes).map_err(|error| refuse(path, whole, error))?;
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| refuse(path, whole, error))?;
    let stored = metadata.metadata().as_ref().and_then(|metadata| metadata.get("state"));
    let stored = stored.ok_or_else(|| refuse(path, whole, "no state"))?;
    let mut state: State = serde_json::from_str(stored).map_err(|error| refuse(path, whole, error))?;
    // A damaged digit may still read as the same number: what is stored must be what would be written.
    if text(path, &state)? != *stored {
        return Err(refuse(path, whole, "a state that was changed"));
    }
    if state.schema != SCHEMA {
        return Err(refuse(path, format!("`{SCHEMA}`"), format!("`{}`", state.schema)));
    }
    if state.fingerprint != fingerprint {
        let found = "one of another recipe, data set, teacher or seed";
        return Err(refuse(path, "the checkpoint of this run", found));
    }
    let mut tensors: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(refuse(path, "tensors of f32", format!("`{name}` {:?}", view.dtype())));
        }
        tensors.insert(name, view.data().to_vec());
    }
    let written = state.sha256.clone();
    let read = tensors.iter().map(|(name, bytes)| (name.as_str(), Cow::Borrowed(&bytes[..])));
    if sha256(path, read, &mut state)? != written {
        return Err(refuse(path, "tensors and history with the hash that was written", "others"));
    }
    let take = |name: String, len: usize| -> Result<Vec<f32>> {
        let bytes = tensors.get(&name).filter(|bytes| bytes.len() == 4 * len);
        let bytes = bytes.ok_or_else(|| refuse(path, format!("{len} floats `{name}`"), "another network's"))?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let of = |group: &str| -> Result<Vec<Vec<f32>>> {
        parameters.iter().map(|p| take(format!("{group}/{}", p.name), p.value.len())).collect()
    };
    let (present, selected) = (of("parameter")?, of("selected")?);
    let slots: Vec<(String, usize)> = stepper.state().into_iter().map(|(name, v)| (name, v.len())).collect();
    let stored = slots.into_iter().map(|(name, len)| take(format!("optimizer/{name}"), len));
    let stored: Vec<Vec<f32>> = stored.collect::<Result<_>>()?;
    parameters.iter_mut().zip(present).for_each(|(p, value)| p.value.copy_from_slice(&value));
    stepper.state_mut().into_iter().zip(stored).for_each(|((_, slot), value)| slot.copy_from_slice(&value));
    let State { history, selected_epoch, finished, .. } = state;
    Ok(Progress { history, selected_epoch, selected, finished })
}
