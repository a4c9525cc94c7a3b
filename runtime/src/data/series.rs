//! One file of series in the forms of the UCR and UEA archives, line by line:
//! tabs or commas (`label, value, value, …`), blanks (the archive of 2015), or `.ts` (`value,value,…:label` after a
//! header; several channels are separated by `:`). The form is told by the content, not by the name.

use super::stream::{Lines, Stream, quoted};
use crate::error::{Refusal, Result};

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Label first, this between the fields.
    Separated(char),
    /// Label first, blanks between the fields, however many.
    Blanks,
    /// Channels, then the label, `:` between them.
    Ts,
}

/// A class label: a number, or a name. Numbers come first and in their order, then names in theirs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    Number(f64),
    Name(String),
}

impl Label {
    /// Reads a label; `None` for a missing one.
    pub(super) fn parse(field: &str) -> Option<Self> {
        let field = field.trim().trim_matches('"').trim();
        match field.parse::<f64>() {
            Ok(number) if number.is_nan() => None,
            // Adding zero turns -0 into 0.
            Ok(number) if number.is_finite() => Some(Self::Number(number + 0.0)),
            _ if field.is_empty() || field == "?" => None,
            _ => Some(Self::Name(field.to_string())),
        }
    }

    /// The class's name: `1` for 1, 1.0 and 1.0000000e+00.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Number(number) if number.abs() < 1e15 => number.to_string(),
            Self::Number(number) => format!("{number:e}"),
            Self::Name(name) => name.clone(),
        }
    }
}

impl Eq for Label {}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        use std::cmp::Ordering::{Greater, Less};
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Number(_), Self::Name(_)) => Less,
            (Self::Name(_), Self::Number(_)) => Greater,
            (Self::Name(a), Self::Name(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The series of one file.
pub(super) struct SeriesFile {
    lines: Lines,
    form: Option<Form>,
    /// Channels and length; of the first series, unless given.
    shape: Option<(usize, usize)>,
    in_header: bool,
}

impl SeriesFile {
    /// Reads `stream`; every series must have `shape` (channels, length), or that of the first.
    pub(super) fn new(stream: Stream, shape: Option<(usize, usize)>) -> Self {
        Self { lines: Lines::new(stream), form: None, shape, in_header: false }
    }

    /// Channels and length.
    pub(super) fn shape(&self) -> Option<(usize, usize)> {
        self.shape
    }

    /// `FILE:LINE` of the last series.
    pub(super) fn place(&self) -> String {
        self.lines.place()
    }

    /// The next series into `values`, channel by channel, and its label; `None` at the end.
    pub(super) fn next(&mut self, values: &mut Vec<f32>) -> Result<Option<Label>> {
        let Self { lines, form, shape, in_header } = self;
        let at = lines.at().to_string();
        while let Some((number, line)) = lines.next()? {
            let place = || format!("{at}:{number}");
            let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
            if line.trim().is_empty() {
                continue;
            }
            let form = *form.get_or_insert_with(|| {
                let form = form_of(line);
                *in_header = form == Form::Ts;
                form
            });
            if form == Form::Ts && line.starts_with('#') {
                continue;
            }
            if *in_header {
                *in_header = !header_line(line).map_err(|e| e.within(place()))?;
                continue;
            }
            values.clear();
            let (label, channels) = read_line(form, line, values).map_err(|e| e.within(place()))?;
            let found = (channels, values.len() / channels);
            let expected = *shape.get_or_insert(found);
            if found != expected {
                let show = |(channels, length): (usize, usize)| match channels {
                    1 => format!("{length} values"),
                    _ => format!("{channels} channels of {length} values"),
                };
                let expected = format!("{}, as in the series before", show(expected));
                let action = "pad, cut or resample the series to one length";
                return Err(Refusal::new(place(), expected, show(found), action));
            }
            return Ok(Some(label));
        }
        if self.in_header {
            return Err(Refusal::new(
                at,
                "a line `@data` and series after it",
                "the end of the file",
                "check the file",
            ));
        }
        Ok(None)
    }
}

fn form_of(line: &str) -> Form {
    match line {
        _ if line.starts_with(['#', '@']) => Form::Ts,
        _ if line.contains('\t') => Form::Separated('\t'),
        _ if line.contains(',') => Form::Separated(','),
        _ => Form::Blanks,
    }
}

/// Reads a line of a `.ts` header; true for its end.
fn header_line(line: &str) -> Result<bool> {
    let mut words = line.split_whitespace();
    let key = words.next().unwrap_or_default().to_ascii_lowercase();
    let value = words.next().unwrap_or_default().to_ascii_lowercase();
    if !key.starts_with('@') {
        let action = "check that the header ends with @data";
        return Err(Refusal::new("", "a header line that begins with @ or #", quoted(line), action));
    }
    match (key.as_str(), value.as_str()) {
        ("@timestamps", "true") => {
            Err(Refusal::new("", "series without time stamps", "`@timeStamps true`", "resample them to a fixed step"))
        }
        ("@classlabel", "false") => {
            Err(Refusal::new("", "series with class labels", "`@classLabel false`", "choose a classification data set"))
        }
        ("@targetlabel", "true") => Err(Refusal::new(
            "",
            "class labels",
            "`@targetLabel true` (regression)",
            "choose a classification data set",
        )),
        ("@data", _) => Ok(true),
        _ => Ok(false),
    }
}

/// Reads the values of a line; its label and number of channels.
fn read_line(form: Form, line: &str, values: &mut Vec<f32>) -> Result<(Label, usize)> {
    let (label, channels) = match form {
        Form::Separated(separator) => {
            let line = line.trim_end_matches(separator);
            let (label, rest) = line.split_once(separator).unwrap_or((line, ""));
            read_values(rest.split(separator).filter(|_| !rest.is_empty()), 1, values)?;
            (label, 1)
        }
        Form::Blanks => {
            let mut fields = line.split_whitespace();
            let label = fields.next().unwrap_or_default();
            read_values(fields, 1, values)?;
            (label, 1)
        }
        Form::Ts => {
            let Some((channels, label)) = line.rsplit_once(':') else {
                let action = "check that the file is complete";
                return Err(Refusal::new("", "values, `:` and a class label", "no `:`", action));
            };
            (label, read_channels(channels, values)?)
        }
    };
    if values.is_empty() {
        return Err(Refusal::new("", "a label and at least one value", quoted(line), "check that it is a UCR file"));
    }
    let label = Label::parse(label)
        .ok_or_else(|| Refusal::new("", "a class label", quoted(label), "label every series, or leave it out"))?;
    Ok((label, channels))
}

/// Reads channels of one length, `:` between them; how many there are.
fn read_channels(text: &str, values: &mut Vec<f32>) -> Result<usize> {
    let mut channels = 0;
    let mut length = 0;
    for channel in text.split(':') {
        let before = values.len();
        channels += 1;
        read_values(channel.split(','), channels, values)?;
        let found = values.len() - before;
        if channels == 1 {
            length = found;
        } else if found != length {
            let expected = format!("{length} values in channel {channels}, as in the first");
            return Err(Refusal::new("", expected, found, "pad, cut or resample the series to one length"));
        }
    }
    Ok(channels)
}

fn read_values<'a>(fields: impl Iterator<Item = &'a str>, channel: usize, values: &mut Vec<f32>) -> Result<()> {
    for (i, field) in fields.enumerate() {
        let field = field.trim();
        match field.parse::<f32>() {
            Ok(value) if value.is_finite() => values.push(value),
            _ => {
                let missing = field.is_empty() || field == "?" || field.eq_ignore_ascii_case("nan");
                let found = if field.is_empty() { "nothing".into() } else { quoted(field) };
                let action = if missing {
                    "fill in missing values, and bring series that were padded to one length"
                } else {
                    "correct the value"
                };
                let at =
                    if channel > 1 { format!("channel {channel} value {}", i + 1) } else { format!("value {}", i + 1) };
                return Err(Refusal::new(at, "a finite number", found, action));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_normalized_and_sorted() {
        let cases =
            [("1", "1"), ("1.0", "1"), ("1.0000000e+00", "1"), ("-0", "0"), (" 2.5 ", "2.5"), ("\"cat\"", "cat")];
        for (field, name) in cases {
            assert_eq!(Label::parse(field).map(|label| label.name()), Some(name.to_string()), "{field}");
        }
        for field in ["", "?", "NaN", " "] {
            assert_eq!(Label::parse(field), None, "{field}");
        }
        let mut labels: Vec<Label> =
            ["b", "10", "-1", "9", "a"].iter().filter_map(|field| Label::parse(field)).collect();
        labels.sort();
        let names: Vec<String> = labels.iter().map(Label::name).collect();
        assert_eq!(names, ["-1", "9", "10", "a", "b"]);
    }
}
