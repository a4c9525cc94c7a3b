//! Tables with a line of names: `train.csv` and `test.csv` in one folder, each perhaps with `.gz`. Fields are separated by
//! commas, semicolons or tabs, whichever the first line has, and may be quoted as RFC 4180 says (but for line ends in
//! them). One column holds the class, others hold numbers; [`ColumnsReading`] names them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reading::ColumnsReading;
use super::series::Label;
use super::stream::{Lines, Stream, find, quoted, sha256};
use super::{Dataset, Description, Reading, Sample, Samples, Split};
use crate::error::{Refusal, Result};
use crate::nearest::nearest;

/// The column of the class where nothing names another.
const LABEL: &str = "label";

/// Most columns of a table.
const COLUMNS: usize = 1 << 20;

struct Csv {
    description: Description,
    paths: [PathBuf; 2],
    columns: ColumnsReading,
    classes: Arc<BTreeMap<Label, usize>>,
}

/// Opens `folder` and reads both tables once.
pub(super) fn open(folder: &Path, reading: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let part = |name: &str| {
        find(folder, &[format!("{name}.csv")]).ok_or_else(|| {
            let expected = format!("a folder with {name}.csv, perhaps .gz");
            Refusal::new(folder.display(), expected, "no such file", "put train.csv and test.csv into one folder")
        })
    };
    let paths = [part("train")?, part("test")?];
    let mut columns = match reading {
        Some(Reading::Columns(columns)) => columns.clone(),
        _ => ColumnsReading { label: LABEL.into(), features: Vec::new() },
    };
    let mut train = Table::open(&paths[0], &columns)?;
    columns.features.clone_from(&train.features);
    let (mut seen, mut values, mut n_train) = (BTreeSet::new(), Vec::new(), 0);
    while let Some(label) = train.next(&mut values)? {
        seen.insert(label);
        n_train += 1;
    }
    if seen.len() < 2 {
        let found = format!("{} in {n_train} rows", seen.len());
        return Err(Refusal::new(paths[0].display(), "at least 2 classes", found, "check the column of labels"));
    }
    let classes: BTreeMap<Label, usize> = seen.into_iter().enumerate().map(|(i, label)| (label, i)).collect();
    let mut description = Description {
        shape: vec![columns.features.len()],
        layout: "F".into(),
        classes: classes.keys().map(Label::name).collect(),
        raw_max: None,
        n_train,
        n_test: 0,
        sha256: sha256(&[&paths[0], &paths[1]])?,
        reading: Some(Reading::Columns(columns.clone())),
    };
    let classes = Arc::new(classes);
    let mut test = Rows { table: Table::open(&paths[1], &columns)?, classes: classes.clone() };
    let mut sample = Sample::default();
    while test.next(&mut sample)? {
        description.n_test += 1;
    }
    if description.n_test == 0 {
        return Err(Refusal::new(paths[1].display(), "at least one row", "none", "check the file"));
    }
    Ok(Box::new(Csv { description, paths, columns, classes }))
}

impl Dataset for Csv {
    fn description(&self) -> &Description {
        &self.description
    }

    fn read(&self, split: Split) -> Result<Box<dyn Samples>> {
        let path = &self.paths[usize::from(split == Split::Test)];
        Ok(Box::new(Rows { table: Table::open(path, &self.columns)?, classes: self.classes.clone() }))
    }
}

struct Rows {
    table: Table,
    classes: Arc<BTreeMap<Label, usize>>,
}

impl Samples for Rows {
    fn next(&mut self, sample: &mut Sample) -> Result<bool> {
        let Some(label) = self.table.next(&mut sample.values)? else { return Ok(false) };
        sample.label = self.classes.get(&label).copied().ok_or_else(|| {
            let expected = format!("one of the {} labels of the training part", self.classes.len());
            let found = quoted(&label.name());
            Refusal::new(self.table.lines.place(), expected, found, "check that both files are of one data set")
        })?;
        Ok(true)
    }
}

/// The rows of one file.
struct Table {
    lines: Lines,
    separator: char,
    /// Names of the columns that make a sample.
    features: Vec<String>,
    label: usize,
    /// Column to place in a sample.
    places: Vec<Option<usize>>,
    fields: Vec<String>,
}

impl Table {
    /// Reads the first line and finds the columns.
    fn open(path: &Path, columns: &ColumnsReading) -> Result<Self> {
        let mut lines = Lines::new(Stream::open(path)?);
        let refuse = |expected: &str, found: &str| Err(Refusal::new(path.display(), expected, found, "check the file"));
        let Some((_, line)) = lines.next()? else { return refuse("a line of column names", "an empty file") };
        let line = line.trim_start_matches('\u{feff}');
        let separator = separator(line);
        let mut names = Vec::new();
        if !split(line, separator, &mut names) || names.len() > COLUMNS {
            return refuse("a line of column names", "quotes that are not closed, or too many names");
        }
        let mut known = BTreeMap::new();
        for (i, name) in names.iter().enumerate() {
            if known.insert(name.as_str(), i).is_some() {
                return refuse("column names that differ", &format!("{} twice", quoted(name)));
            }
        }
        let find = |name: &str| {
            known.get(name).copied().ok_or_else(|| {
                let near = nearest(name, &known.keys().copied().collect::<Vec<_>>());
                let action = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("name columns as the first line does: {}", quoted(line)),
                };
                Refusal::new(format!("{}:1", path.display()), format!("a column {}", quoted(name)), "none", action)
            })
        };
        let label = find(&columns.label)?;
        let features: Vec<String> = match columns.features.is_empty() {
            true => names.iter().filter(|name| **name != columns.label).cloned().collect(),
            false => columns.features.clone(),
        };
        if features.is_empty() {
            return refuse("at least one column beside the label", "none");
        }
        let mut places = vec![None; names.len()];
        for (place, name) in features.iter().enumerate() {
            places[find(name)?] = Some(place);
        }
        Ok(Self { lines, separator, features, label, places, fields: Vec::new() })
    }

    /// The next row that is not blank into `values`, and its label; `None` at the end.
    fn next(&mut self, values: &mut Vec<f32>) -> Result<Option<Label>> {
        let Self { lines, separator, features, label, places, fields } = self;
        let place = lines.at().to_string();
        while let Some((number, line)) = lines.next()? {
            if line.trim().is_empty() {
                continue;
            }
            let at = || format!("{place}:{number}");
            if !split(line, *separator, fields) {
                return Err(Refusal::new(at(), "fields of which quotes are closed", quoted(line), "correct the row"));
            }
            if fields.len() != places.len() {
                let expected = format!("{} fields, as the first line names", places.len());
                return Err(Refusal::new(at(), expected, fields.len(), "correct the row"));
            }
            values.clear();
            values.resize(features.len(), 0.0);
            for (field, to) in fields.iter().zip(&*places).filter_map(|(field, to)| Some((field.trim(), (*to)?))) {
                values[to] = match field.parse::<f32>() {
                    Ok(value) if value.is_finite() => value,
                    _ => {
                        let found = if field.is_empty() { "nothing".into() } else { quoted(field) };
                        let at = format!("{}: column {}", at(), quoted(&features[to]));
                        let action = "fill in missing values, turn words into numbers, or leave the column out";
                        return Err(Refusal::new(at, "a finite number", found, action));
                    }
                };
            }
            let label = &fields[*label];
            return match Label::parse(label) {
                Some(label) => Ok(Some(label)),
                None => Err(Refusal::new(at(), "a class label", quoted(label), "label every row, or leave it out")),
            };
        }
        Ok(None)
    }
}

/// What separates the fields of a line: a tab or a semicolon where one is outside quotes, else commas.
fn separator(line: &str) -> char {
    let (mut tab, mut semicolon) = (false, false);
    // Quotes open at the start of a field only.
    let (mut inside, mut quotable) = (false, true);
    for c in line.chars() {
        match c {
            '"' if quotable => inside = !inside,
            ' ' => {}
            _ if inside => {}
            _ => {
                tab |= c == '\t';
                semicolon |= c == ';';
                quotable = matches!(c, '\t' | ';' | ',');
            }
        }
    }
    match (tab, semicolon) {
        (true, _) => '\t',
        (_, true) => ';',
        _ => ',',
    }
}

/// Splits a line into `fields`, one more than [`COLUMNS`] at most; false where a quote is not closed, or something follows it.
fn split(line: &str, separator: char, fields: &mut Vec<String>) -> bool {
    fields.clear();
    let mut rest = line;
    loop {
        if fields.len() > COLUMNS {
            return true;
        }
        let Some(mut quoted) = rest.trim_start_matches(' ').strip_prefix('"') else {
            let (field, after) = rest.split_once(separator).map_or((rest, None), |(field, after)| (field, Some(after)));
            fields.push(field.trim().to_string());
            let Some(after) = after else { return true };
            rest = after;
            continue;
        };
        let mut field = String::new();
        // Two quotes in a row stand for one.
        loop {
            let Some((part, after)) = quoted.split_once('"') else { return false };
            field.push_str(part);
            let Some(more) = after.strip_prefix('"') else {
                quoted = after.trim_start_matches(' ');
                break;
            };
            field.push('"');
            quoted = more;
        }
        fields.push(field);
        match quoted.strip_prefix(separator) {
            Some(after) => rest = after,
            None => return quoted.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_guessed_outside_quotes() {
        #[rustfmt::skip]
        let cases = [
            ("a,b,label",                   ','),
            ("a;b,c;label",                 ';'),
            ("a;b\tlabel",                  '\t'),
            ("\"temp; C\",b,label",         ','),
            ("b, \"temp; C\" ,label",       ','),
            ("\"a\tb\";\"c, d\";label",     ';'),
            ("\"say \"\"a; b\"\"\",label",  ','),
            ("5\" wide;label",              ';'),
            ("\"a;b",                       ','),
        ];
        for (line, expected) in cases {
            assert_eq!(separator(line), expected, "{line}");
        }
    }

    #[test]
    fn fields_are_split_as_rfc_4180_says() {
        #[rustfmt::skip]
        let cases: [(&str, char, Option<&[&str]>); 9] = [
            ("a,b,,c",              ',',  Some(&["a", "b", "", "c"])),
            (" a , b ,",            ',',  Some(&["a", "b", ""])),
            ("\"a,b\", \"c\" ,d",   ',',  Some(&["a,b", "c", "d"])),
            ("\"say \"\"a\"\"\",\"\"", ',', Some(&["say \"a\"", ""])),
            ("1\t\t\"x\"\t\"y\"",  '\t', Some(&["1", "", "x", "y"])),
            ("it's 5\" wide;2",     ';',  Some(&["it's 5\" wide", "2"])),
            ("",                    ',',  Some(&[""])),
            ("\"a,b",               ',',  None),
            ("\"a\"b,c",            ',',  None),
        ];
        for (line, separator, expected) in cases {
            let mut fields = Vec::new();
            let split = split(line, separator, &mut fields).then_some(fields);
            assert_eq!(split, expected.map(|fields| fields.iter().map(ToString::to_string).collect()), "{line}");
        }
    }
}
