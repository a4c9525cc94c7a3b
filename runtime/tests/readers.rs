//! Readers that a contract tells how to read, against values by other software and against damaged files.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::{
    ArrayReading, AudioReading, ColumnsReading, Dataset, Dct, Frames, Reading, Sample, Slope, Source, Spectrum, Split,
};
use support::{gzip, random, scratch, shared};

fn open(source: &str, reading: Option<Reading>) -> kd_runtime::Result<Box<dyn Dataset>> {
    Source { reading, ..Source::parse(source)? }.open()
}

fn all(data: &dyn Dataset, split: Split) -> Vec<Sample> {
    let (mut samples, mut sample, mut all) = (data.read(split).unwrap(), Sample::default(), Vec::new());
    while samples.next(&mut sample).unwrap() {
        all.push(sample.clone());
    }
    all
}

/// What a data set says, opened; or the refusal.
fn refusal(source: &str, reading: Option<Reading>) -> String {
    open(source, reading).err().map(|e| e.to_string()).unwrap_or_default()
}

fn columns(label: &str, features: &[&str]) -> Option<Reading> {
    let features = features.iter().map(ToString::to_string).collect();
    Some(Reading::Columns(ColumnsReading { label: label.into(), features }))
}

fn array(layout: &str) -> Option<Reading> {
    Some(Reading::Array(ArrayReading { layout: layout.into() }))
}

#[test]
fn columns_are_read_by_name_whatever_separates_them() {
    let folder = scratch("csv");
    let tables = [
        ("comma", "id,width,label,\"he, ight\"\n7,1.5,cat,2\n\n8,-1e1, dog ,3\r\n"),
        ("semicolon", "id;width;label;he, ight\n7;1.5;\"cat\";2\n8;-1e1;dog;3"),
        ("tab", "\u{feff}id\twidth\tlabel\the, ight\n7\t1.5\tcat\t 2\n8\t\"-10\"\tdog\t3\n"),
    ];
    for (name, text) in tables {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("train.csv"), text).unwrap();
        fs::write(folder.join("test.csv.gz"), gzip(text.as_bytes())).unwrap();
        let source = format!("csv:{}", folder.display());
        let data = open(&source, columns("label", &["he, ight", "width"])).unwrap();
        let expected = [Sample { values: vec![2.0, 1.5], label: 0 }, Sample { values: vec![3.0, -10.0], label: 1 }];
        assert_eq!(all(&*data, Split::Test), expected, "{name}");
        assert_eq!(data.description().classes, ["cat", "dog"]);
        // Without features all columns but the label are read, and the contract names them.
        let data = open(&source, None).unwrap();
        assert_eq!((data.description().shape.clone(), data.description().n_train), (vec![3], 2));
        let contract = Contract::for_data(data.description(), "x", "y", Meaning::Logits);
        assert_eq!(contract.input.reading, columns("label", &["id", "width", "he, ight"]));
        let read_back = Contract::parse(&contract.to_json()).unwrap();
        assert_eq!(read_back, contract);
        contract.check_data(data.description()).unwrap();
        let other = open(&source, columns("label", &["width", "id", "he, ight"])).unwrap();
        let refused = contract.check_data(other.description()).unwrap_err().to_string();
        assert!(refused.contains("input.reading"), "{refused}");
    }
    // What stands in quotes separates nothing.
    for part in ["train.csv", "test.csv"] {
        fs::write(folder.join(part), "\"temp; C\",b,label\n1,2,x\n3,4,y\n").unwrap();
    }
    let data = open(&format!("csv:{}", folder.display()), None).unwrap();
    assert_eq!(data.description().reading, columns("label", &["temp; C", "b"]));
}

#[test]
fn bad_tables_are_refused_with_their_row_and_column() {
    let good = "a,b,label\n1,2,x\n3,4,y\n";
    #[rustfmt::skip]
    let cases = [
        ("empty",    "",                             good,                 None,                       "train.csv: expected a line of column names, found an empty file"),
        ("twice",    "a,a,label\n1,2,x\n",           good,                 None,                       "expected column names that differ, found `a` twice"),
        ("no_label", "a,b,lable\n1,2,x\n3,4,y\n",    good,                 None,                       "train.csv:1: expected a column `label`, found none; did you mean `lable`?"),
        ("no_column", good,                          good,                 columns("label", &["c"]),   "train.csv:1: expected a column `c`, found none"),
        ("few",      "a,b,label\n1,x\n",             good,                 None,                       "train.csv:2: expected 3 fields, as the first line names, found 2"),
        ("word",     "a,b,label\n1,2,x\n3,red,y\n",  good,                 None,                       "train.csv:3: column `b`: expected a finite number, found `red`"),
        ("nan",      "a,b,label\n1,2,x\nnan,4,y\n",  good,                 None,                       "train.csv:3: column `a`: expected a finite number, found `nan`"),
        ("missing",  "a,b,label\n1,2,x\n3,,y\n",     good,                 None,                       "train.csv:3: column `b`: expected a finite number, found nothing"),
        ("unlabelled", "a,b,label\n1,2,\n3,4,y\n",   good,                 None,                       "train.csv:2: expected a class label"),
        ("quote",    "a,b,label\n1,\"2,x\n",         good,                 None,                       "train.csv:2: expected fields of which quotes are closed"),
        ("one",      "a,b,label\n1,2,x\n",           good,                 None,                       "expected at least 2 classes, found 1 in 1 rows"),
        ("only",     "label\nx\ny\n",                good,                 None,                       "expected at least one column beside the label"),
        ("class",    good,                           "a,b,label\n1,2,z\n", None,                       "test.csv:2: expected one of the 2 labels of the training part, found `z`"),
        ("no_rows",  good,                           "a,b,label\n",        None,                       "test.csv: expected at least one row, found none"),
        ("label",    good,                           good,                 columns("a", &["a", "b"]),  "input.reading.features: expected columns without the label, found `a`"),
        ("kind",     good,                           good,                 array("F"),                 "input.reading for `csv`: expected `columns`, found `array`"),
    ];
    let folder = scratch("bad_csv");
    let mut failed = Vec::new();
    for (name, train, test, reading, expected) in cases {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("train.csv"), train).unwrap();
        fs::write(folder.join("test.csv"), test).unwrap();
        let found = refusal(&format!("csv:{}", folder.display()), reading);
        if !found.contains(expected) || found.contains('\n') {
            failed.push(format!("{name}: {found}"));
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// A numpy array: version, header and elements.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A zip archive of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let at = (file.len() as u32).to_le_bytes();
        let size = (bytes.len() as u32).to_le_bytes();
        // Version, flags, method, time, date; checksum; sizes; length of name, of what is extra.
        let common =
            [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &size[..], &size, &[name.len() as u8, 0, 0, 0]].concat();
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let n = (entries.len() as u16).to_le_bytes();
    let sizes = [(directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &n, &n, &sizes, &[0, 0]].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Two training and one test sample of 2 x 3 values, labels 5 and -1.
fn small_npz() -> Vec<u8> {
    let ramp: Vec<f32> = (0..12).map(|i| i as f32).collect();
    zip(&[
        ("x_train.npy", &npy("<f4", "2, 2, 3", &floats(&ramp))),
        ("y_train.npy", &npy("<i8", "2,", &[5_i64, -1].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())),
        ("x_test.npy", &npy("<f2", "1, 2, 3", &[0x00, 0x3c, 0, 0, 0x00, 0xc0, 0, 0, 0, 0, 0, 0x7b])),
        ("y_test.npy", &npy("|i1", "1, 1", &[255])),
    ])
}

#[test]
fn arrays_are_brought_to_channels_first() {
    let folder = scratch("npz");
    let path = folder.join("small.npz");
    fs::write(&path, small_npz()).unwrap();
    let source = format!("npz:{}", path.display());
    let ramp = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let turned = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
    for (reading, layout, shape, values) in [
        (None, "CT", vec![2, 3], ramp),
        (array("CT"), "CT", vec![2, 3], ramp),
        (array("TC"), "CT", vec![3, 2], turned),
        (array("HW"), "CHW", vec![1, 2, 3], ramp),
    ] {
        let data = open(&source, reading.clone()).unwrap();
        let description = data.description();
        assert_eq!((&*description.layout, &description.shape, &description.reading), (layout, &shape, &reading));
        assert_eq!(description.classes, ["-1", "5"]);
        let train = all(&*data, Split::Train);
        assert_eq!((&train[0].values[..], train[0].label, train[1].label), (&values[..], 1, 0));
        if layout == "CT" && shape == [2, 3] {
            assert_eq!(
                all(&*data, Split::Test),
                [Sample { values: vec![1.0, 0.0, -2.0, 0.0, 0.0, 57344.0], label: 0 }]
            );
        }
    }
    assert!(
        refusal(&source, array("F")).contains("expected a layout of 2 letters, as the samples are [2, 3], found `F`")
    );
    assert!(refusal(&source, array("WC")).contains("input.reading.layout: expected one of F, T, CT"));
}

#[test]
fn a_compressed_archive_of_numpy_has_its_known_moments() {
    let Some(path) = shared("data/speech/fsdd_mfcc49x10.npz") else { return };
    let data = open(&format!("npz:{}", path.display()), array("TC")).unwrap();
    let description = data.description();
    assert_eq!((description.n_train, description.n_test, &description.shape[..]), (2700, 300, &[10, 49][..]));
    // numpy's means of each coefficient of the training part.
    let expected = [-60.716, 2.867, 0.769, -0.351, -1.489, -0.750, -0.561, -0.303, -0.458, -0.261];
    let mut sums = [0.0; 10];
    for sample in all(&*data, Split::Train) {
        for (sum, channel) in sums.iter_mut().zip(sample.values.chunks(49)) {
            *sum += channel.iter().map(|&v| f64::from(v)).sum::<f64>();
        }
    }
    for (sum, expected) in sums.iter().zip(expected) {
        assert!((sum / (2700.0 * 49.0) - expected).abs() < 1e-3, "{sum} {expected}");
    }
    let counts = all(&*data, Split::Test).iter().fold([0; 10], |mut counts, sample| {
        counts[sample.label] += 1;
        counts
    });
    assert_eq!(counts, [30; 10]);
}

#[test]
fn bad_archives_are_refused_and_damaged_ones_never_panic() {
    let folder = scratch("bad_npz");
    let path = folder.join("bad.npz");
    let source = format!("npz:{}", path.display());
    let x = npy("<f4", "2, 3", &floats(&[0.0; 6]));
    let y = npy("|u1", "2,", &[0, 1]);
    let with =
        |x: &[u8], y: &[u8]| zip(&[("x_train.npy", x), ("y_train.npy", y), ("x_test.npy", x), ("y_test.npy", y)]);
    #[rustfmt::skip]
    let cases = [
        (b"PK\x03\x04".to_vec(),                                       "expected an intact zip archive, found no directory at its end"),
        (zip(&[("x_train.npy", &x), ("y_train.npy", &y)]),             "expected an array x_test, found x_train.npy, y_train.npy"),
        (with(b"\x93NUMPX\x01\x00..", &y),                             "x_train.npy: expected a numpy array"),
        (with(&npy(">f4", "2, 3", &floats(&[0.0; 6])), &y),            "expected elements of one of |b1"),
        (with(&npy("<f4", "2, 4", &floats(&[0.0; 6])), &y),            "expected 8 elements, as the header says, found 6"),
        (with(&npy("<f4", "2, 2", &floats(&[0.0; 6])), &y),            "expected an array as long as its header says"),
        (with(&npy("<f4", "2, 4000000000", &[]), &y),                  "expected samples of 1 to 16777216 values"),
        (with(&npy("<f4", "9999999999, 9999999999999", &[]), &y),      "expected an array of at least one dimension"),
        (with(&npy("<f4", "2, 3", &floats(&[0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0])), &y), "x_train.npy: element 1: expected a finite number, found NaN"),
        (with(&x, &npy("|u1", "3,", &[0, 1, 1])),                      "y_train.npy: expected 2 labels, as many as samples in x, found 3;"),
        (with(&x, &npy("|u1", "2, 2", &[0, 1, 1, 0])),                 "y_train.npy: expected 2 labels, as many as samples in x, found 2 x 2;"),
        (with(&x, &npy("<f4", "2,", &floats(&[0.0, 1.0]))),            "expected labels that are whole numbers, found float32;"),
        (with(&x, &npy("|u1", "2,", &[1, 1])),                         "expected at least 2 classes, found 1"),
        (zip(&[("x_train.npy", &x), ("y_train.npy", &y), ("x_test.npy", &x), ("y_test.npy", &npy("|u1", "2,", &[0, 9]))]), "y_test.npy: expected one of the 2 labels"),
        (zip(&[("x_train.npy", &x), ("y_train.npy", &y), ("x_test.npy", &npy("<f4", "2, 1", &floats(&[0.0; 2]))), ("y_test.npy", &y)]), "expected samples of [3] as in the training part, found [1]"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let found = refusal(&source, None);
        assert!(found.contains(expected) && !found.contains('\n'), "{expected}: {found}");
    }
    let good = small_npz();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let _ = open(&source, None);
    }
    let mut state = 3;
    for _ in 0..300 {
        let length = random(&mut state) as usize % good.len();
        fs::write(&path, &good[..length]).unwrap();
        assert!(open(&source, None).is_err(), "{length} of {} bytes", good.len());
    }
}

/// The files of a `.tar.gz`, name and bytes: enough for what the tests bring.
fn untar(packed: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
    let (mut at, mut files) = (0, Vec::new());
    while let Some(header) = bytes.get(at..at + 512).filter(|header| header[0] != 0) {
        let text = |from: usize, n: usize| {
            String::from_utf8_lossy(&header[from..from + n]).trim_matches(['\0', ' ']).to_string()
        };
        let size = usize::from_str_radix(&text(124, 12), 8).unwrap();
        if header[156] == b'0' {
            files.push((text(0, 100), bytes[at + 512..at + 512 + size].to_vec()));
        }
        at += 512 + size.next_multiple_of(512);
    }
    files
}

/// The front end of the shared features of spoken digits, as its notes say.
fn fsdd() -> AudioReading {
    AudioReading {
        sample_rate_hz: 8000,
        clip_samples: 8000,
        peak_normalized: false,
        window_samples: 320,
        hop_samples: 160,
        spectrum: Spectrum::Power,
        slope: Slope::Hz,
        dct: Dct::Orthonormal,
        ..AudioReading::mlperf_tiny()
    }
}

#[test]
fn recordings_give_the_features_that_numpy_and_scipy_gave() {
    let Some(folder) = shared("data/speech") else { return };
    let place = scratch("spoken");
    let recordings = untar(&fs::read(folder.join("fsdd_60_wavs.tar.gz")).unwrap());
    assert_eq!(recordings.len(), 60);
    for part in ["train", "test"] {
        fs::create_dir_all(place.join(part)).unwrap();
        for (name, bytes) in &recordings {
            let name = Path::new(name).file_name().unwrap();
            fs::write(place.join(part).join(name), bytes).unwrap();
        }
    }
    let source = format!("wav:{}", place.display());
    let data = open(&source, Some(Reading::Audio(fsdd()))).unwrap();
    assert_eq!((data.description().n_test, &data.description().shape[..]), (60, &[1, 49, 10][..]));
    assert_eq!(data.description().classes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let npz = format!("npz:{}", folder.join("fsdd_mfcc49x10.npz").display());
    let stored = all(&*open(&npz, array("HW")).unwrap(), Split::Test);
    for (i, found) in all(&*data, Split::Test).iter().enumerate() {
        // Five takes of each speaker and digit are stored, of which these recordings are the first.
        let expected = &stored[5 * i];
        assert_eq!(found.label, expected.label);
        for (place, (&a, &b)) in found.values.iter().zip(&expected.values).enumerate() {
            // They are stored in half precision: 11 bits.
            assert!((a - b).abs() < 5e-4 * b.abs() + 1e-3, "recording {i}, value {place}: {a}, stored {b}");
        }
    }
    // As a series of ten channels.
    let steps = AudioReading { frames: Frames::Steps, ..fsdd() };
    let turned = open(&source, Some(Reading::Audio(steps))).unwrap();
    let (a, b) = (all(&*data, Split::Test), all(&*turned, Split::Test));
    assert_eq!((&turned.description().shape[..], &*turned.description().layout), (&[10, 49][..], "CT"));
    assert_eq!(a[7].values[3 * 10 + 2], b[7].values[2 * 49 + 3]);
    let refused = refusal(&source, None);
    assert!(refused.contains("0_george_0.wav: expected 16000 Hz, found 8000 Hz"), "{refused}");
}

/// A WAVE file of whole numbers of 16 bits.
fn wave(rate: u32, samples: impl Iterator<Item = i16>) -> Vec<u8> {
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let size = (data.len() as u32).to_le_bytes();
    let format =
        [&[16, 0, 0, 0, 1, 0, 1, 0][..], &rate.to_le_bytes(), &(2 * rate).to_le_bytes(), &[2, 0, 16, 0]].concat();
    [b"RIFF\0\0\0\0WAVEfmt ", &format[..], b"data", &size, &data].concat()
}

/// A tone that rises, and noise, of most of a second; whole numbers only, so that other software makes the same.
fn chirp(n: i64) -> impl Iterator<Item = i16> {
    (0..n).map(|i| ((i * i / 7 % 4001 - 2000) * 6 + (i * 7919 % 601) * 3) as i16)
}

#[test]
fn the_front_end_of_mlperf_tiny_gives_the_numbers_of_tensorflow() {
    let folder = scratch("mlperf");
    for (name, n) in [("train/a/1.wav", 14_000), ("train/b/1.wav", 20_000), ("test/a/1.wav", 14_000)] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), wave(16_000, chirp(n))).unwrap();
    }
    let data = open(&format!("wav:{}", folder.display()), None).unwrap();
    assert_eq!(data.description().reading, Some(Reading::Audio(AudioReading::mlperf_tiny())));
    assert_eq!(data.description().shape, [1, 49, 10]);
    let found = all(&*data, Split::Test).remove(0).values;
    // tf.signal 2.21 as get_dataset.py of MLPerf Tiny's keyword_spotting calls it: stft(480, 320), abs,
    // linear_to_mel_weight_matrix(40, 257, 16000, 20, 4000), log(x + 1e-6), mfccs_from_log_mel_spectrograms.
    #[rustfmt::skip]
    let rows: [(usize, [f32; 10]); 4] = [
        (0,  [25.8201, 1.4604, 0.1006, -0.5892, -0.7701, -0.818, -0.9282, -0.5019, -0.8176, -0.3016]),
        (20, [19.3568, -4.0922, -3.4472, -2.1459, -0.0728, 1.1089, 1.1952, -0.1771, -0.1149, 0.3986]),
        (43, [15.0798, 2.5308, 1.6791, 0.7568, 0.5845, 0.536, 0.122, 0.5186, -0.0141, 0.2657]),
        (48, [-123.5697, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    ];
    for (row, expected) in rows {
        for (a, b) in found[10 * row..10 * row + 10].iter().zip(expected) {
            assert!(
                (a - b).abs() < 1e-3,
                "frame {row}: {:?}, TensorFlow {expected:?}",
                &found[10 * row..10 * row + 10]
            );
        }
    }
    // Without a cosine transform: frame 20's lowest bands.
    let bands = AudioReading { coefficients: 0, ..AudioReading::mlperf_tiny() };
    let data = open(&format!("wav:{}", folder.display()), Some(Reading::Audio(bands))).unwrap();
    assert_eq!(data.description().shape, [1, 49, 40]);
    let found = &all(&*data, Split::Test)[0].values;
    let expected = [1.2361, 0.0396, -0.0576, -0.1202, 0.7007, 0.4503];
    assert!(found[800..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{:?}", &found[800..806]);
    assert!((found.iter().sum::<f32>() - 912.3475).abs() < 0.05);
}
