//! The readers against data sets whose counts and means were taken by other software, and against damaged files.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use kd_runtime::data::{Dataset, Sample, Source, Split};
use support::{gzip, random, scratch, shared};

fn open(source: &str) -> kd_runtime::Result<Box<dyn Dataset>> {
    Source::parse(source)?.open()
}

/// Counts per class, mean and standard deviation of all values of one part.
fn measure(data: &dyn Dataset, split: Split) -> (Vec<usize>, f64, f64) {
    let mut counts = vec![0; data.description().classes.len()];
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let mut samples = data.read(split).unwrap();
    let mut sample = Sample::default();
    let elements: usize = data.description().shape.iter().product();
    while samples.next(&mut sample).unwrap() {
        counts[sample.label] += 1;
        assert_eq!(sample.values.len(), elements);
        for &value in &sample.values {
            n += 1.0;
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
        }
    }
    (counts, sum / n, (squares / n - (sum / n) * (sum / n)).sqrt())
}

#[test]
fn digits_have_their_fixed_stratified_split() {
    let data = open("digits").unwrap();
    let (train, train_mean, _) = measure(&*data, Split::Train);
    let (test, test_mean, _) = measure(&*data, Split::Test);
    assert_eq!((data.description().n_train, data.description().n_test), (1438, 359));
    // Counts of the whole file by another program: 178 182 177 183 181 182 181 179 174 180.
    assert_eq!(train, [142, 146, 142, 146, 145, 146, 145, 143, 139, 144]);
    assert_eq!(test, [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]);
    // The mean of the whole file is 4.884164579855314 (numpy).
    let mean = (train_mean * 1438.0 + test_mean * 359.0) / 1797.0;
    assert!((mean - 4.884_164_579_855_314).abs() < 1e-9, "{mean}");
    assert_eq!(data.description().shape, [1, 8, 8]);
}

#[test]
fn mnist_has_its_known_counts_and_moments() {
    let Some(folder) = shared("data/mnist") else { return };
    let data = open(&format!("idx:{}", folder.display())).unwrap();
    let (train, mean, std) = measure(&*data, Split::Train);
    assert_eq!(train, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert!((mean / 255.0 - 0.1307).abs() < 5e-5 && (std / 255.0 - 0.3081).abs() < 5e-5, "{mean} {std}");
    let (test, ..) = measure(&*data, Split::Test);
    assert_eq!(test, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    assert_eq!((data.description().n_train, data.description().n_test), (60_000, 10_000));
}

/// Name, series of the test part, shape, classes, training series a class.
type Row = (&'static str, usize, [usize; 2], &'static [&'static str], &'static [usize]);

#[test]
fn the_archive_has_its_known_counts() {
    let Some(folder) = shared("data/ucr") else { return };
    #[rustfmt::skip]
    let cases: [Row; 11] = [
        // name              test  shape      classes                          training counts
        ("ECG200",            100, [1, 96],   &["-1", "1"],                    &[31, 69]),
        ("GunPoint",          150, [1, 150],  &["1", "2"],                     &[24, 26]),
        ("ItalyPowerDemand", 1029, [1, 24],   &["1", "2"],                     &[34, 33]),
        ("SyntheticControl",  300, [1, 60],   &["1", "2", "3", "4", "5", "6"], &[50, 50, 50, 50, 50, 50]),
        ("CBF",               900, [1, 128],  &["1", "2", "3"],                &[10, 12, 8]),
        ("TwoLeadECG",       1139, [1, 82],   &["1", "2"],                     &[12, 11]),
        ("ArrowHead",         175, [1, 251],  &["0", "1", "2"],                &[12, 12, 12]),
        ("Coffee",             28, [1, 286],  &["0", "1"],                     &[14, 14]),
        ("ECG5000",          4499, [1, 140],  &["1", "2", "3", "4", "5"],      &[292, 177, 10, 19, 2]),
        ("FaceFour",           88, [1, 350],  &["1", "2", "3", "4"],           &[8, 8, 3, 5]),
        ("BasicMotions",       40, [6, 100],  &["Badminton", "Running", "Standing", "Walking"], &[10, 10, 10, 10]),
    ];
    for (name, n_test, shape, classes, counts) in cases {
        let data = open(&format!("ucr:{}", folder.join(name).display())).unwrap();
        let description = data.description();
        assert_eq!((description.n_test, &description.shape[..]), (n_test, &shape[..]), "{name}");
        assert_eq!(description.classes, classes, "{name}");
        let (found, mean, std) = measure(&*data, Split::Train);
        assert_eq!(found, counts, "{name}");
        if name == "BasicMotions" {
            assert!((mean - 0.027).abs() < 5e-4 && (std - 4.80).abs() < 5e-3, "{name}: {mean} {std}");
        } else {
            // Each series is normalized with the sample's standard deviation (n - 1).
            let n = shape[1] as f64;
            assert!(mean.abs() < 1e-3 && (std - ((n - 1.0) / n).sqrt()).abs() < 1e-3, "{name}: {mean} {std}");
        }
    }
}

#[test]
fn series_of_unequal_length_are_refused_in_one_line() {
    let Some(folder) = shared("data/ucr") else { return };
    let error = open(&format!("ucr:{}", folder.join("JapaneseVowels").display())).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("JapaneseVowels_TRAIN.ts.gz:") && error.contains("values, as in the series before"),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

#[test]
fn every_form_of_the_archive_gives_the_same_samples() {
    let folder = scratch("forms");
    let ts = "#c\n@problemName X\n@data\n1,2.5,-3e0:1\n0,1,2:-1\n";
    let forms = [
        ("tab", ".tsv", "1\t1\t2.5\t-3\n-1\t0\t1\t2\n".to_string(), false),
        ("comma", "", "1.0,1,2.5,-3\r\n-1.0,0,1,2\r\n".to_string(), true),
        ("blanks", ".txt", "  1.0000000e+00  1.0  2.5 -3.0\n -1.0 0 1 2\n\n".to_string(), false),
        ("ts", ".ts", ts.to_string(), true),
    ];
    let mut seen = Vec::new();
    for (name, ending, text, packed) in forms {
        let bytes = if packed { gzip(text.as_bytes()) } else { text.into_bytes() };
        let gz = if packed { ".gz" } else { "" };
        for part in ["TRAIN", "TEST"] {
            fs::write(folder.join(format!("{name}_{part}{ending}{gz}")), &bytes).unwrap();
        }
        let data = open(&format!("ucr:{}", folder.join(name).display())).unwrap();
        let mut samples = data.read(Split::Test).unwrap();
        let mut sample = Sample::default();
        let mut all = Vec::new();
        while samples.next(&mut sample).unwrap() {
            all.push(sample.clone());
        }
        seen.push((name, data.description().classes.clone(), all));
    }
    let expected =
        [Sample { values: vec![1.0, 2.5, -3.0], label: 1 }, Sample { values: vec![0.0, 1.0, 2.0], label: 0 }];
    for (name, classes, samples) in seen {
        assert_eq!((classes, samples), (vec!["-1".to_string(), "1".to_string()], expected.to_vec()), "{name}");
    }
    // Four data sets in one folder: the folder alone is refused and one is named.
    let error = open(&format!("ucr:{}", folder.display())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("expected one data set, found 4"), "{error}");
}

#[test]
fn bad_series_are_refused_with_their_line() {
    #[rustfmt::skip]
    let cases = [
        // name              train                  test            what the message holds
        ("nan",              "1\t1\t2\n2\t1\tNaN",  "1\t1\t2",      "_TRAIN.tsv:2: value 2: expected a finite number, found `NaN`"),
        ("missing",          "1\t1\t2\n2\t\t1",     "1\t1\t2",      "_TRAIN.tsv:2: value 1: expected a finite number, found nothing"),
        ("infinite",         "1\t1\t1e39\n2\t1\t1", "1\t1\t2",      "_TRAIN.tsv:1: value 2: expected a finite number, found `1e39`"),
        ("unequal",          "1\t1\t2\n2\t1",       "1\t1\t2",      "_TRAIN.tsv:2: expected 2 values, as in the series before, found 1 values"),
        ("test_length",      "1\t1\t2\n2\t1\t2",    "1\t1\t2\t3",   "_TEST.tsv:1: expected 2 values"),
        ("unknown_label",    "1\t1\t2\n2\t1\t2",    "1\t1\t2\n3\t1\t2", "_TEST.tsv:2: expected one of the 2 labels of the training part, found `3`"),
        ("one_class",        "1\t1\t2\n1\t1\t2",    "1\t1\t2",      "_TRAIN.tsv: expected at least 2 classes, found 1"),
        ("empty",            "",                    "1\t1\t2",      "_TRAIN.tsv: expected at least one series, found none"),
        ("empty_test",       "1\t1\t2\n2\t1\t2",    "",             "_TEST.tsv: expected at least one series, found none"),
        ("word",             "1\t1\tx\n2\t1\t1",    "1\t1\t2",      "_TRAIN.tsv:1: value 2: expected a finite number, found `x`"),
        ("no_label",         "\t1\t2\n2\t1\t2",     "1\t1\t2",      "_TRAIN.tsv:1: expected a class label"),
        ("label_only",       "1\n2",                "1\t1\t2",      "_TRAIN.tsv:1: expected a label and at least one value"),
        ("ts_no_data",       "@problemName x\n",    "1\t1\t2",      "expected a line `@data` and series after it"),
        ("ts_stamps",        "@timeStamps true\n",  "1\t1\t2",      "_TRAIN.tsv:1: expected series without time stamps"),
        ("ts_channels",      "@data\n1,2:1:a\n",    "1\t1\t2",      "_TRAIN.tsv:2: expected 2 values in channel 2, as in the first, found 1"),
    ];
    let folder = scratch("bad_series");
    let mut failed = Vec::new();
    for (name, train, test, expected) in cases {
        fs::write(folder.join(format!("{name}_TRAIN.tsv")), train).unwrap();
        fs::write(folder.join(format!("{name}_TEST.tsv")), test).unwrap();
        match open(&format!("ucr:{}", folder.join(name).display())) {
            Ok(_) => failed.push(format!("{name}: accepted")),
            Err(e) if !e.to_string().contains(expected) => failed.push(format!("{name}: {e}")),
            Err(_) => {}
        }
    }
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// A small idx data set: `n` images of 2x3 and their labels 0, 1, 2, 0, …
fn idx_files(n: u8) -> (Vec<u8>, Vec<u8>) {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 3];
    images.extend((0..n).flat_map(|i| [i, 0, 255, 7, 8, 9]));
    let mut labels = vec![0, 0, 8, 1, 0, 0, 0, n];
    labels.extend((0..n).map(|i| i % 3));
    (images, labels)
}

fn write_idx(folder: &Path, train: (&[u8], &[u8]), test: (&[u8], &[u8])) {
    fs::create_dir_all(folder).unwrap();
    for (part, (images, labels)) in [("train", train), ("t10k", test)] {
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn bad_idx_files_are_refused_with_their_name() {
    let folder = scratch("bad_idx");
    let (images, labels) = idx_files(9);
    let changed = |bytes: &[u8], at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        bytes
    };
    let (few_images, few_labels) = idx_files(8);
    #[rustfmt::skip]
    let cases = [
        ("intact",       images.clone(),              labels.clone(),           ""),
        ("magic",        changed(&images, 2, 9),      labels.clone(),           "t10k-images-idx3-ubyte: expected idx magic 0x00000803"),
        ("swapped",      labels.clone(),              images.clone(),           "expected idx magic 0x00000803"),
        ("short",        images[..40].to_vec(),       labels.clone(),           "expected 54 bytes of pixels, as the header says, found 24"),
        ("long",         [&images[..], &[0]].concat(), labels.clone(),          "expected 54 bytes of pixels, as the header says, found 55"),
        ("header",       images[..10].to_vec(),       labels.clone(),           "expected an idx header of 16 bytes, found 10 bytes"),
        ("empty",        Vec::new(),                  labels.clone(),           "found 0 bytes"),
        ("few_labels",   images.clone(),              few_labels,               "expected 9 labels, as many as images in"),
        ("few_images",   few_images,                  labels.clone(),           "expected 8 labels, as many as images in"),
        ("short_labels", images.clone(),              labels[..12].to_vec(),    "expected 9 labels, as the header says, found 4"),
        ("long_labels",  images.clone(),              [&labels[..], &[1]].concat(), "expected 0 bytes after the labels, as the header says, found 1"),
        ("huge",         changed(&images, 8, 255),    labels.clone(),           "expected images of 1 to 16777216 pixels"),
        ("none",         changed(&changed(&images, 7, 0), 11, 0), labels.clone(), "expected dimensions of at least 1"),
        ("many",         changed(&images, 4, 255),    labels.clone(),           "bytes of pixels, as the header says"),
        ("other_label",  images.clone(),              changed(&labels, 10, 7),  "label 2: expected one of the 3 labels of the training part (0 to 2), found 7"),
        ("size",         changed(&changed(&images, 11, 3), 15, 2), labels.clone(), "expected images of 2x3 as in the training part, found 3x2"),
    ];
    let mut failed = Vec::new();
    for (name, test_images, test_labels, expected) in &cases {
        write_idx(&folder.join(name), (&images, &labels), (test_images, test_labels));
        match open(&format!("idx:{}", folder.join(name).display())) {
            Ok(_) if !expected.is_empty() => failed.push(format!("{name}: accepted")),
            Err(e) if expected.is_empty() || !e.to_string().contains(expected) => failed.push(format!("{name}: {e}")),
            _ => {}
        }
    }
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn a_gzip_file_that_was_damaged_is_refused_or_read_and_never_panics() {
    let folder = scratch("damaged");
    let (images, labels) = idx_files(30);
    let packed = gzip(&images);
    let series = gzip(b"1\t0.5\t2\n2\t1\t-7.25\n1\t0.25\t2\n");
    write_idx(&folder, (&images, &labels), (&images, &labels));
    fs::remove_file(folder.join("t10k-images-idx3-ubyte")).unwrap();
    fs::write(folder.join("S_TRAIN.tsv"), b"1\t0.5\t2\n2\t1\t-7.25\n").unwrap();
    let idx = |bytes: &[u8]| {
        fs::write(folder.join("t10k-images-idx3-ubyte.gz"), bytes).unwrap();
        open(&format!("idx:{}", folder.display())).map(|data| measure(&*data, Split::Test).0)
    };
    let ucr = |bytes: &[u8]| {
        fs::write(folder.join("S_TEST.tsv.gz"), bytes).unwrap();
        open(&format!("ucr:{}", folder.join("S").display())).map(|data| measure(&*data, Split::Test).0)
    };
    assert_eq!((idx(&packed), ucr(&series)), (Ok(vec![10, 10, 10]), Ok(vec![2, 1])));
    let mut state = 5;
    let mut refused = 0;
    for (file, read) in [(&packed, &idx as &dyn Fn(&[u8]) -> _), (&series, &ucr)] {
        for bit in 0..file.len() * 8 {
            let mut bytes = file.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Err(e) = read(&bytes) {
                refused += 1;
                assert!(!e.to_string().contains('\n'), "{e}");
            }
        }
        for length in 0..file.len() {
            assert!(read(&file[..length]).is_err(), "{length} of {} bytes are accepted", file.len());
        }
        for _ in 0..200 {
            let mut bytes = file.clone();
            for _ in 0..1 + random(&mut state) % 8 {
                let at = random(&mut state) as usize % bytes.len();
                bytes[at] = random(&mut state) as u8;
            }
            let _ = read(&bytes);
        }
    }
    // All but the bits of gzip's header that say time, level and system are guarded by its checksum.
    assert!(refused > (packed.len() + series.len() - 20) * 8 * 9 / 10, "{refused}");
}

#[test]
fn a_bare_file_that_was_damaged_is_refused_or_read_and_never_panics() {
    let folder = scratch("damaged_bare");
    let (images, labels) = idx_files(12);
    let series = b"@dimensions 2\n@data\n1,2:3,4:a\n5,6:7,8:b\n";
    fs::write(folder.join("S_TEST.ts"), series).unwrap();
    for bit in 0..images.len() * 8 {
        let mut bytes = images.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        write_idx(&folder, (&images, &labels), (&bytes, &labels));
        let result = open(&format!("idx:{}", folder.display()));
        assert_eq!(result.is_ok(), bit >= 16 * 8, "bit {bit}");
    }
    for bit in 0..series.len() * 8 {
        let mut bytes = series.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(folder.join("S_TRAIN.ts"), &bytes).unwrap();
        let _ = open(&format!("ucr:{}", folder.join("S").display()));
    }
}

#[test]
fn sources_are_refused_by_name() {
    #[rustfmt::skip]
    let cases = [
        ("digit",          "did you mean `digits`?"),
        ("mnist:x",        "expected a format (cifar, csv, digits, idx, images, npz, ucr, wav)"),
        ("idx",            "expected `idx:PATH`"),
        ("digits:x",       "expected `digits` alone"),
        ("",               "write it as FORMAT:PATH"),
    ];
    for (text, expected) in cases {
        let error = Source::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = open("idx:/nonexistent").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("/nonexistent: expected a folder of idx files, found nothing"), "{error}");
    let error = open("ucr:/nonexistent/X").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("expected X_TRAIN with the ending"), "{error}");
}

/// A record: labels, then pixels of which the first and last tell it.
fn record(labels: &[u8], pixel: u8) -> Vec<u8> {
    let mut bytes = labels.to_vec();
    bytes.push(pixel);
    bytes.extend(vec![7; 3070]);
    bytes.push(255 - pixel);
    bytes
}

#[test]
fn both_cifar_layouts_are_read_in_order() {
    let folder = scratch("cifar");
    let (ten, hundred) = (folder.join("ten"), folder.join("hundred"));
    [&ten, &hundred].into_iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    fs::write(ten.join("data_batch_1.bin"), [record(&[3], 1), record(&[9], 2)].concat()).unwrap();
    fs::write(ten.join("data_batch_2.bin.gz"), gzip(&record(&[0], 3))).unwrap();
    fs::write(ten.join("test_batch.bin"), record(&[4], 4)).unwrap();
    fs::write(hundred.join("train.bin"), [record(&[19, 99], 1), record(&[0, 3], 2)].concat()).unwrap();
    fs::write(hundred.join("test.bin"), record(&[1, 42], 3)).unwrap();
    let names: Vec<String> = (0..100).map(|i| format!("kind {i}")).collect();
    fs::write(hundred.join("fine_label_names.txt"), names.join("\n") + "\n").unwrap();
    let seen = |folder: &Path, split| {
        let data = open(&format!("cifar:{}", folder.display())).unwrap();
        let (mut samples, mut sample, mut all) = (data.read(split).unwrap(), Sample::default(), Vec::new());
        while samples.next(&mut sample).unwrap() {
            assert_eq!(
                (sample.values.len(), sample.values[1], sample.values[3071]),
                (3072, 7.0, 255.0 - sample.values[0])
            );
            all.push((sample.label, sample.values[0]));
        }
        (data.description().classes.last().cloned().unwrap(), all)
    };
    assert_eq!(seen(&ten, Split::Train), ("9".into(), vec![(3, 1.0), (9, 2.0), (0, 3.0)]));
    assert_eq!(seen(&ten, Split::Test), ("9".into(), vec![(4, 4.0)]));
    assert_eq!(seen(&hundred, Split::Train), ("kind 99".into(), vec![(99, 1.0), (3, 2.0)]));
    assert_eq!(seen(&hundred, Split::Test), ("kind 99".into(), vec![(42, 3.0)]));
}

/// Name, files, what the message holds.
type Folder<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a str);

#[test]
fn bad_cifar_files_are_refused_with_their_record() {
    let good = [record(&[3], 1), record(&[9], 2)].concat();
    let cut = &good[..good.len() - 1];
    #[rustfmt::skip]
    let cases: [Folder; 9] = [
        ("nothing",   &[],                                                                          "expected data_batch_1.bin and test_batch.bin, or train.bin and test.bin"),
        ("no_test",   &[("data_batch_1.bin", &good)],                                               "expected test_batch.bin, perhaps .gz, found no such file"),
        ("gap",       &[("data_batch_3.bin", &good), ("test_batch.bin", &good)],                    "expected data_batch_1.bin, perhaps .gz"),
        ("empty",     &[("data_batch_1.bin", &good), ("test_batch.bin", b"")],                      "test_batch.bin: expected at least one image"),
        ("cut",       &[("data_batch_1.bin", cut), ("test_batch.bin", &good)],                      "data_batch_1.bin: record 1: expected 3073 bytes (1 of labels, 3072 pixels), found 3072"),
        ("label",     &[("data_batch_1.bin", &good), ("test_batch.bin", &[&[10], &good[1..]].concat())], "test_batch.bin: record 0: expected a class of 0 to 9, found 10"),
        ("no_test_2", &[("train.bin", &good)],                                                      "expected test.bin, perhaps .gz"),
        ("few_names", &[("data_batch_1.bin", &good), ("test_batch.bin", &good), ("batches.meta.txt", b"a\nb\n")], "batches.meta.txt: expected 10 names, one a line, found 2"),
        ("same_name", &[("data_batch_1.bin", &good), ("test_batch.bin", &good), ("batches.meta.txt", b"a\na\n")], "batches.meta.txt:2: expected 10 names that differ"),
    ];
    let folder = scratch("bad_cifar");
    let mut failed = Vec::new();
    for (name, files, expected) in cases {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        match open(&format!("cifar:{}", folder.display())) {
            Ok(_) => failed.push(format!("{name}: accepted")),
            Err(e) if !e.to_string().contains(expected) => failed.push(format!("{name}: {e}")),
            Err(_) => {}
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
