//! What goes into a model and comes out of it: names, shapes, scaling, classes. `contract.json`, schema `kd.contract/1`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{Description, Reading};
use crate::error::{Refusal, Result};
use crate::files;
use crate::graph::{Dim, ElementType, Graph, Shape, ValueId, tensor};

/// The value of `schema` in the file.
pub const SCHEMA: &str = "kd.contract/1";

/// Letters that a layout may hold: channels, height, width, time, features.
const LETTERS: &str = "CHWTF";

/// A model's contract with its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the model is for.
    pub task: Task,
    /// What goes in.
    pub input: InputContract,
    /// What comes out.
    pub output: OutputContract,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One class a sample.
    Classification,
}

/// What goes in: `x = (raw * scale - mean) / std`, mean and std one number or one a channel (a table's are its columns). With
/// `per_sample` the raw values of each channel are brought to mean 0 and deviation 1 before, by their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// The graph's input.
    pub name: String,
    /// Its element type, `f32`.
    pub element: String,
    /// Shape of one sample, without the batch: `[C, H, W]`, `[C, T]` or `[F]`.
    pub shape: Vec<usize>,
    /// Letters for the shape: `CHW`, `HWC`, `CT`, `F`.
    pub layout: String,
    /// Whether each channel of a sample is first brought to mean 0 and deviation 1 over its own values, as series usually
    /// are (z-normalization); one that hardly differs from its mean only has its mean taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_sample: bool,
    /// Factor of the raw values.
    pub scale: f32,
    /// Subtracted after scaling; one number, or one a channel or column.
    pub mean: Vec<f32>,
    /// Divided by at last; one number, or one a channel or column.
    pub std: Vec<f32>,
    /// How files become the raw values of a sample, where their format leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputContract {
    /// The graph's output.
    pub name: String,
    /// What the numbers mean.
    pub meaning: Meaning,
    /// Names of the classes, in order.
    pub classes: Vec<String>,
}

/// What the numbers of an output mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Before softmax.
    Logits,
    /// Rows sum to 1.
    Probabilities,
    /// A vector to be compared with others.
    Embedding,
}

impl InputContract {
    /// Channels, and elements of each: `(C, rest)`. Each column of a table (`F`) is one; another layout without the letter
    /// C is one channel.
    fn channels(&self) -> (usize, usize) {
        let elements: usize = self.shape.iter().product();
        let place = if self.layout == "F" { Some(0) } else { self.layout.find('C') };
        let channels = place.and_then(|i| self.shape.get(i)).copied().unwrap_or(1);
        (channels, elements / channels.max(1))
    }

    /// Whether the channels are the last dimension of several.
    fn channels_last(&self) -> bool {
        self.layout.len() > 1 && self.layout.ends_with('C')
    }

    /// Elements of one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The shape with the channels first, as the readers of [`crate::data`] give it.
    fn shape_channels_first(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.channels_last() {
            shape.rotate_right(1);
        }
        shape
    }
}

impl Contract {
    /// Reads and checks a contract file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&files::read_text(path)?).map_err(|e| e.within(path.display()))
    }

    /// Parses and checks a contract's text.
    pub fn parse(text: &str) -> Result<Self> {
        let contract: Self = serde_json::from_str(text).map_err(|e| {
            let full = e.to_string();
            let found = full.split(" at line ").next().unwrap_or_default();
            let at = format!("line {} column {}", e.line(), e.column());
            Refusal::new(at, format!("a contract (`{SCHEMA}`)"), found, "correct the file")
        })?;
        contract.check()?;
        Ok(contract)
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Checks what the types do not: the schema, sizes, numbers, names.
    pub fn check(&self) -> Result<()> {
        let refuse =
            |at: &str, expected: String, found: String| Err(Refusal::new(at, expected, found, "correct the contract"));
        if self.schema != SCHEMA {
            return refuse("schema", format!("`{SCHEMA}`"), format!("`{}`", self.schema));
        }
        let input = &self.input;
        if input.element != "f32" {
            return refuse("input.element", "`f32`".into(), format!("`{}`", input.element));
        }
        match tensor::count(&input.shape) {
            Some(1..=0x1000_0000) => {}
            Some(n) => return refuse("input.shape", "1 to 268435456 elements".into(), n.to_string()),
            None => return refuse("input.shape", "1 to 268435456 elements".into(), format!("{:?}", input.shape)),
        }
        let letters: BTreeSet<char> = input.layout.chars().filter(|c| LETTERS.contains(*c)).collect();
        if letters.len() != input.shape.len() || input.layout.len() != input.shape.len() {
            let expected = format!("{} different letters of `{LETTERS}`, one a dimension", input.shape.len());
            return refuse("input.layout", expected, format!("`{}`", input.layout));
        }
        if let Some(i) = input.layout.find('C').filter(|&i| i != 0 && i + 1 != input.layout.len()) {
            return refuse("input.layout", "`C` first or last".into(), format!("`{}`, C at place {i}", input.layout));
        }
        self.check_scaling()?;
        if let Some(reading) = &input.reading {
            reading.check()?;
            // Before a file is read: it says how much memory a sample takes.
            if let Some(elements) = reading.elements().filter(|elements| *elements != Some(input.elements())) {
                let found = elements.map_or("more".to_string(), |n| n.to_string());
                return refuse(
                    "input.reading",
                    format!("samples of {} values, as input.shape", input.elements()),
                    found,
                );
            }
        }
        self.check_output()
    }

    fn check_scaling(&self) -> Result<()> {
        let input = &self.input;
        let (channels, _) = input.channels();
        let refuse =
            |at: &str, expected: String, found: String| Err(Refusal::new(at, expected, found, "correct the contract"));
        if input.per_sample && input.layout == "F" {
            return refuse("input.per_sample", "false where each column is one value".into(), "true".into());
        }
        if !input.scale.is_finite() || input.scale == 0.0 {
            return refuse("input.scale", "a finite number that is not 0".into(), input.scale.to_string());
        }
        for (at, values) in [("input.mean", &input.mean), ("input.std", &input.std)] {
            if values.len() != 1 && values.len() != channels {
                let expected = if channels == 1 { "1 number".into() } else { format!("1 or {channels} numbers") };
                return refuse(at, expected, values.len().to_string());
            }
        }
        if let Some(mean) = input.mean.iter().find(|x| !x.is_finite()) {
            return refuse("input.mean", "finite numbers".into(), mean.to_string());
        }
        if let Some(std) = input.std.iter().find(|x| !x.is_finite() || **x <= 0.0) {
            return refuse("input.std", "finite numbers above 0".into(), std.to_string());
        }
        Ok(())
    }

    fn check_output(&self) -> Result<()> {
        let classes = &self.output.classes;
        let mut seen = BTreeSet::new();
        if let Some(name) = classes.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
            let found = if name.is_empty() { "an empty one".into() } else { format!("`{name}` twice") };
            let expected = "class names that differ and are not empty";
            return Err(Refusal::new("output.classes", expected, found, "correct the contract"));
        }
        if self.output.meaning != Meaning::Embedding && classes.len() < 2 {
            let found = classes.len();
            return Err(Refusal::new("output.classes", "at least 2 classes", found, "correct the contract"));
        }
        Ok(())
    }

    /// Refuses a model that does not have this input and output.
    pub fn check_model(&self, graph: &Graph) -> Result<()> {
        let input = named(graph, &graph.inputs, &self.input.name, "input")?;
        if let [_, _, ..] = graph.inputs[..] {
            let found = format!("{}", graph.inputs.len());
            return Err(Refusal::new(
                "model",
                "one input, as a contract describes",
                found,
                "cut the model to one input",
            ));
        }
        let value = graph.value(input);
        if value.element.to_string() != self.input.element
            || sample_shape(&value.shape).as_ref() != Some(&self.input.shape)
        {
            let expected = format!("{} {} of the model's `{}`", value.element, value.shape, value.name);
            let found = format!("{} {:?} of one sample", self.input.element, self.input.shape);
            return Err(Refusal::new(
                "contract input.shape",
                expected,
                found,
                "correct the contract or take its model",
            ));
        }
        let output = graph.value(named(graph, &graph.outputs, &self.output.name, "output")?);
        if output.element != ElementType::F32 {
            let (at, found) = (format!("output `{}`", output.name), output.element.to_string());
            return Err(Refusal::new(
                at,
                "f32",
                found,
                "name another output, or export the model without its last cast",
            ));
        }
        let elements = output.shape.0.get(1..).and_then(|dims| {
            dims.iter().try_fold(1_usize, |n, dim| if let Dim::Known(d) = dim { n.checked_mul(*d) } else { None })
        });
        if self.output.meaning != Meaning::Embedding && elements != Some(self.output.classes.len()) {
            let expected = format!("the classes of the model's `{}` {}", output.name, output.shape);
            let found = format!("{} classes", self.output.classes.len());
            return Err(Refusal::new("contract output.classes", expected, found, "name each class once, in order"));
        }
        Ok(())
    }

    /// Refuses data whose samples or classes are not this contract's.
    pub fn check_data(&self, data: &Description) -> Result<()> {
        let same = if self.input.layout == "F" {
            tensor::count(&data.shape) == tensor::count(&self.input.shape)
        } else {
            self.input.shape_channels_first() == data.shape
        };
        if !same {
            let expected = format!("samples of shape {:?} ({})", self.input.shape, self.input.layout);
            let found = format!("{:?} ({})", data.shape, data.layout);
            return Err(Refusal::new("data", expected, found, "choose the data that the model was made for"));
        }
        if self.input.reading != data.reading {
            // As the contract's file would say it.
            let text = |reading: &Option<Reading>| serde_json::to_string(reading).unwrap_or_default();
            let action = "write it into the contract, or read the data as the contract says";
            let (ours, theirs) = (text(&self.input.reading), text(&data.reading));
            return Err(Refusal::new("contract input.reading", ours, theirs, action));
        }
        let classes = &self.output.classes;
        if classes.len() != data.classes.len() {
            let expected = format!("{} classes", classes.len());
            let action = "choose the data that the model was made for";
            return Err(Refusal::new("data", expected, data.classes.len(), action));
        }
        let ours: BTreeSet<&String> = classes.iter().collect();
        let theirs: BTreeSet<&String> = data.classes.iter().collect();
        if ours == theirs && *classes != data.classes {
            let at = classes.iter().zip(&data.classes).position(|(a, b)| a != b).unwrap_or(0);
            let expected = format!("class {at} to be `{}`", classes[at]);
            let found = format!("`{}`", data.classes[at]);
            let action = "bring the model's outputs, and the contract's classes with them, into the data's order";
            return Err(Refusal::new("data", expected, found, action));
        }
        Ok(())
    }

    /// Raw values of one sample, channels first as the readers give them, to what the model is fed, in the contract's
    /// layout. Both have [`InputContract::elements`] elements.
    pub fn prepare(&self, raw: &[f32], x: &mut [f32]) {
        let input = &self.input;
        let (channels, inner) = input.channels();
        let pick = |values: &[f32], c: usize| values.get(c).or(values.first()).copied();
        for (c, plane) in raw.chunks_exact(inner.max(1)).enumerate().take(channels) {
            let mean = pick(&input.mean, c).unwrap_or(0.0);
            let std = pick(&input.std, c).unwrap_or(1.0);
            let (own_mean, own_std) = if input.per_sample { moments(plane) } else { (0.0, 1.0) };
            for (i, &raw) in plane.iter().enumerate() {
                let value = if input.per_sample { ((f64::from(raw) - own_mean) / own_std) as f32 } else { raw };
                let place = if input.channels_last() { i * channels + c } else { c * inner + i };
                if let Some(x) = x.get_mut(place) {
                    *x = (value * input.scale - mean) / std;
                }
            }
        }
    }

    /// A contract filled with what a model tells, for the user to complete. What it cannot tell stands as `?`.
    pub fn template(graph: &Graph) -> Self {
        let shape = |id: Option<&ValueId>| {
            let bound = id.map(|&id| graph.value(id).shape.bind(1)).unwrap_or_default();
            bound.get(1..).map(<[usize]>::to_vec).unwrap_or_default()
        };
        let name = |id: Option<&ValueId>| id.map(|&id| graph.value(id).name.clone()).unwrap_or_default();
        let input = shape(graph.inputs.first());
        let layout = match input[..] {
            [_] => "F".to_string(),
            [_, _] => "CT".to_string(),
            [first, _, last] if last <= 4 && first > 4 => "HWC".to_string(),
            [_, _, _] => "CHW".to_string(),
            _ => "?".repeat(input.len()),
        };
        let classes = tensor::count(&shape(graph.outputs.first())).unwrap_or(0).min(1000);
        let ends_in_softmax = graph
            .outputs
            .first()
            .is_some_and(|&id| graph.producers()[id.index()].is_some_and(|i| graph.nodes[i].op.name() == "Softmax"));
        Self {
            schema: SCHEMA.into(),
            task: Task::Classification,
            input: InputContract {
                name: name(graph.inputs.first()),
                element: graph.inputs.first().map(|&id| graph.value(id).element.to_string()).unwrap_or_default(),
                shape: input,
                layout,
                per_sample: false,
                scale: 1.0,
                mean: vec![0.0],
                std: vec![1.0],
                reading: None,
            },
            output: OutputContract {
                name: name(graph.outputs.first()),
                meaning: if ends_in_softmax { Meaning::Probabilities } else { Meaning::Logits },
                classes: (0..classes).map(|i| i.to_string()).collect(),
            },
        }
    }

    /// The contract of a model that is made for `data`: raw values scaled to 0..1 where the format says their range,
    /// mean 0, std 1; the caller may set `input.mean` and `input.std`.
    pub fn for_data(data: &Description, input: &str, output: &str, meaning: Meaning) -> Self {
        Self {
            schema: SCHEMA.into(),
            task: Task::Classification,
            input: InputContract {
                name: input.into(),
                element: "f32".into(),
                shape: data.shape.clone(),
                layout: data.layout.clone(),
                per_sample: false,
                scale: data.raw_max.map_or(1.0, |max| 1.0 / max),
                mean: vec![0.0],
                std: vec![1.0],
                reading: data.reading.clone(),
            },
            output: OutputContract { name: output.into(), meaning, classes: data.classes.clone() },
        }
    }
}

/// Mean and deviation of some values; a deviation that is less than a millionth of the mean's size, or less than f32 tells, is 1.
fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let std = (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let differs = std > 1e-6 * mean.abs() && std > f64::from(f32::MIN_POSITIVE);
    (mean, if differs { std } else { 1.0 })
}

/// Where a contract is needed and there is none: writes the template, filled with what the model tells, to `out` (a
/// program's standard output) and returns the refusal that goes with it.
pub fn missing(model: &Path, graph: &Graph, needed_for: &str, out: &mut dyn Write) -> Refusal {
    // A closed pipe must not hide the refusal.
    let _ = out.write_all(Contract::template(graph).to_json().as_bytes()).and_then(|()| out.flush());
    Refusal::new(
        model.display(),
        format!("a contract for {needed_for}"),
        "no contract.json beside it and no --contract",
        "complete the template on standard output, save it and pass it with --contract",
    )
}

/// The shape without the batch; `None` if another size is open or there is no batch.
fn sample_shape(shape: &Shape) -> Option<Vec<usize>> {
    shape.0.get(1..)?.iter().map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect()
}

fn named(graph: &Graph, ids: &[ValueId], name: &str, what: &str) -> Result<ValueId> {
    ids.iter().copied().find(|&id| graph.value(id).name == name).ok_or_else(|| {
        let names: Vec<String> = ids.iter().map(|&id| format!("`{}`", graph.value(id).name)).collect();
        let expected = format!("one of the model's {what}s: {}", names.join(", "));
        Refusal::new(format!("contract {what}.name"), expected, format!("`{name}`"), "correct the contract")
    })
}
