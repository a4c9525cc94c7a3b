//! Folders and tars of pictures.
#![cfg(feature = "images")]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use kd_runtime::contract::{Contract, Meaning};
use kd_runtime::data::{Dataset, ImageReading, Reading, Sample, Source, Split};
use support::{gzip, random, scratch, shared};

fn open(path: &Path, reading: Option<ImageReading>) -> kd_runtime::Result<Box<dyn Dataset>> {
    let reading = reading.map(Reading::Image);
    Source { reading, ..Source::parse(&format!("images:{}", path.display()))? }.open()
}

fn all(data: &dyn Dataset, split: Split) -> Vec<Sample> {
    let (mut samples, mut sample, mut all) = (data.read(split).unwrap(), Sample::default(), Vec::new());
    while samples.next(&mut sample).unwrap() {
        all.push(sample.clone());
    }
    all
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture whose red is its column, green its row, blue the number `tint`.
fn picture(width: u32, height: u32, tint: u8) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, tint])).into()
}

fn png(width: u32, height: u32, tint: u8) -> Vec<u8> {
    encoded(&picture(width, height, tint), ImageFormat::Png)
}

/// What [`png`] is as a sample.
fn planes(width: usize, height: usize, tint: u8) -> Vec<f32> {
    let places = || (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let tints = places().map(|_| f32::from(tint));
    places().map(|(x, _)| x as f32).chain(places().map(|(_, y)| y as f32)).chain(tints).collect()
}

/// The same files for a folder and a tar.
fn small_set() -> Vec<(String, Vec<u8>)> {
    let long = format!("test/dog/{}.png", "n".repeat(150));
    [("train/cat/a.png", 1), ("train/cat/b.PNG", 2), ("train/dog/c.png", 3), ("test/dog/d.png", 4), (&long, 5)]
        .into_iter()
        .map(|(name, tint)| (name.to_string(), png(3, 2, tint)))
        .chain([("train/dog/notes.txt".into(), b"no picture".to_vec()), ("train/dog/.hidden.png".into(), vec![])])
        .collect()
}

fn write(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// A header of ustar and the blocks of an entry.
fn entry(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let fill = bytes.len().next_multiple_of(512) - bytes.len();
    [&header[..], bytes, &vec![0; fill]].concat()
}

/// A tar in which every file lies in the folder `set`; long names as GNU or as pax writes them.
fn tar(files: &[(String, Vec<u8>)], pax: bool) -> Vec<u8> {
    let mut bytes = entry("set/", b'5', b"");
    for (name, content) in files {
        let name = format!("set/{name}");
        if name.len() > 100 {
            let record = format!("path={name}\n");
            let length = record.len() + 4;
            bytes.extend(match pax {
                true => entry("PaxHeaders/x", b'x', format!("{length} {record}").as_bytes()),
                false => entry("././@LongLink", b'L', format!("{name}\0").as_bytes()),
            });
        }
        bytes.extend(entry(&name, b'0', content));
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn a_folder_and_its_tars_give_the_same_samples() {
    let folder = scratch("pictures");
    let files = small_set();
    write(&folder.join("set"), &files);
    let gnu = tar(&files, false);
    fs::write(folder.join("gnu.tar"), &gnu).unwrap();
    fs::write(folder.join("gnu.tar.gz"), gzip(&gnu)).unwrap();
    fs::write(folder.join("pax.tar"), tar(&files, true)).unwrap();
    for name in ["set", "gnu.tar", "gnu.tar.gz", "pax.tar"] {
        let data = open(&folder.join(name), None).unwrap();
        let description = data.description();
        assert_eq!((&description.shape[..], description.raw_max), (&[3, 2, 3][..], Some(255.0)), "{name}");
        assert_eq!((description.classes.join(" "), description.n_train, description.n_test), ("cat dog".into(), 3, 2));
        let sample = |tint, label| Sample { values: planes(3, 2, tint), label };
        assert_eq!(all(&*data, Split::Train), [sample(1, 0), sample(2, 0), sample(3, 1)], "{name}");
        assert_eq!(all(&*data, Split::Test), [sample(4, 1), sample(5, 1)], "{name}");
        let contract = Contract::for_data(description, "x", "y", Meaning::Logits);
        let size = ImageReading { height: 2, width: 3, channels: 3, shorter_side: None };
        assert_eq!(contract.input.reading, Some(Reading::Image(size)));
        assert_eq!(Contract::parse(&contract.to_json()), Ok(contract));
    }
}

#[test]
fn pictures_in_deeper_folders_belong_to_the_class_above() {
    let folder = scratch("deeper");
    let names =
        ["train/cat/a/x.png", "train/cat/a/y/z.png", "train/cat/b.png", "train/dog/test/x.png", "test/dog/d/e.png"];
    let files: Vec<_> = names.iter().zip(1..).map(|(name, tint)| (name.to_string(), png(3, 2, tint))).collect();
    let hidden = ["train/cat/.old/x.png", "train/@eaDir/x.png/THUMB_S.jpg", "__MACOSX/train/cat/x.png"];
    let hidden = hidden.map(|name| (name.to_string(), png(3, 2, 9)));
    write(&folder.join("set"), &files);
    write(&folder.join("set"), &hidden);
    fs::write(folder.join("set.tar"), tar(&[&files[..], &hidden].concat(), false)).unwrap();
    for path in [folder.join("set"), folder.join("set.tar")] {
        let data = open(&path, None).unwrap();
        let sample = |tint, label| Sample { values: planes(3, 2, tint), label };
        assert_eq!(all(&*data, Split::Train), [sample(1, 0), sample(2, 0), sample(3, 0), sample(4, 1)]);
        assert_eq!(all(&*data, Split::Test), [sample(5, 1)]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("..", folder.join("set/train/cat/round")).unwrap();
        let refused = open(&folder.join("set"), None).err().unwrap().to_string();
        assert!(refused.contains("cat/round: expected files and folders, found a link to a folder"), "{refused}");
    }
}

#[test]
fn one_gray_picture_does_not_make_a_set_gray() {
    let folder = scratch("gray");
    let gray = |value| encoded(&GrayImage::from_pixel(3, 2, image::Luma([value])).into(), ImageFormat::Png);
    let jpeg = encoded(&picture(3, 2, 3), ImageFormat::Jpeg);
    let files = |second: &[u8]| {
        [("train/a/1.png", gray(7)), ("train/b/1.png", second.to_vec()), ("test/a/1.png", png(3, 2, 1))]
            .map(|(name, bytes)| (name.to_string(), bytes))
    };
    for (name, second, channels) in [("png", png(3, 2, 9), 3), ("jpeg", jpeg, 3), ("gray", gray(9), 1)] {
        let files = files(&second);
        write(&folder.join(name), &files);
        fs::write(folder.join(format!("{name}.tar")), tar(&files, false)).unwrap();
        for path in [folder.join(name), folder.join(format!("{name}.tar"))] {
            let data = open(&path, None).unwrap();
            assert_eq!(data.description().shape, [channels, 2, 3], "{name}");
            let train = all(&*data, Split::Train);
            assert_eq!(train[0].values, vec![7.0; channels * 6], "{name}");
            assert_eq!(train[1].values.len(), channels * 6, "{name}");
        }
        // What is said is done, whatever the files have.
        let size = ImageReading { height: 2, width: 3, channels: 1, shorter_side: None };
        assert_eq!(open(&folder.join(name), Some(size)).unwrap().description().shape, [1, 2, 3]);
    }
}

#[test]
fn what_would_be_left_out_is_refused_by_its_name() {
    let folder = scratch("left_out");
    let base = |more: &[&str]| -> Vec<(String, Vec<u8>)> {
        let names = ["train/a/1.png", "train/b/1.png", "test/a/1.png"];
        names.iter().chain(more).map(|name| (name.to_string(), png(3, 2, 1))).collect()
    };
    let notes = ["train/a/.DS_Store", "train/a/._1.webp", "train/b/Thumbs.db", "train/README", "train/a/LICENSE.html"];
    let texts = ["train/labels.csv", "train/a/x.TXT", "test/a/b/x.md", "test/x.json", "other/a/1.webp"];
    let another = "expected *.png or *.jpg or *.jpeg, found a file of another kind; convert it";
    #[rustfmt::skip]
    let cases = [
        ("notes",   base(&[&notes[..], &texts].concat()), ""),
        ("webp",    base(&["train/a/2.webp"]),            "train/a/2.webp: "),
        ("deeper",  base(&["train/a/b/2"]),               "train/a/b/2: "),
        ("test",    base(&["test/a/2.flac"]),             "test/a/2.flac: "),
        ("beside",  base(&["train/2.gif"]),               "train/2.gif: "),
    ];
    for (name, files, at) in cases {
        write(&folder.join(name), &files);
        fs::write(folder.join(format!("{name}.tar")), tar(&files, false)).unwrap();
        for path in [folder.join(name), folder.join(format!("{name}.tar"))] {
            let refused = open(&path, None).err().map(|e| e.to_string()).unwrap_or_default();
            let expected = if at.is_empty() { String::new() } else { format!("{at}{another}") };
            assert!(refused.contains(&expected) && refused.is_empty() == at.is_empty(), "{name}: {refused}");
        }
    }
    // A class without a sample, first in the archive and last; and a link.
    let files = base(&[]);
    write(&folder.join("set"), &files);
    fs::create_dir_all(folder.join("set/train/c/d")).unwrap();
    fs::write(folder.join("set/train/c/notes.txt"), "").unwrap();
    let empty = entry("set/train/c/", b'5', b"");
    let packed = tar(&files, false);
    fs::write(folder.join("first.tar"), [&empty[..], &packed].concat()).unwrap();
    fs::write(folder.join("last.tar"), [&packed[..packed.len() - 1024], &empty, &[0; 1024]].concat()).unwrap();
    for name in ["set", "first.tar", "last.tar"] {
        let refused = open(&folder.join(name), None).err().map(|e| e.to_string()).unwrap_or_default();
        let expected =
            "train/c: expected samples of this class, *.png or *.jpg or *.jpeg, found none; put them there, or";
        assert!(refused.contains(expected), "{name}: {refused}");
    }
    let full = entry("set/train/a/", b'5', b"");
    fs::write(folder.join("full.tar"), [&full[..], &packed].concat()).unwrap();
    assert!(open(&folder.join("full.tar"), None).is_ok());
    fs::write(folder.join("link.tar"), [&entry("set/train/a/2.png", b'1', b"")[..], &packed].concat()).unwrap();
    let refused = open(&folder.join("link.tar"), None).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("set/train/a/2.png: expected a file, found a link"), "{refused}");
}

#[test]
fn a_tar_that_is_cut_off_between_two_files_is_refused() {
    let folder = scratch("cut_tar");
    let whole = tar(&small_set(), false);
    let last = entry("set/train/dog/.hidden.png", b'0', b"").len();
    for (name, cut, refused) in
        [("zeros.tar", 512, false), ("no_zeros.tar", 1024, true), ("entry.tar", 1024 + last, true)]
    {
        fs::write(folder.join(name), &whole[..whole.len() - cut]).unwrap();
        let found = open(&folder.join(name), None).err().map(|e| e.to_string()).unwrap_or_default();
        let expected = "found one that ends without the blocks of zeros that close a tar: it is cut off";
        assert_eq!(found.contains(expected), refused, "{name}: {found}");
    }
}

#[test]
fn pictures_are_resized_and_cut_from_the_middle() {
    let folder = scratch("resized");
    let files = [("train/a/1.png", png(9, 5, 7)), ("train/b/1.png", png(8, 12, 9)), ("test/a/1.png", png(6, 6, 8))];
    write(&folder, &files.map(|(name, bytes)| (name.to_string(), bytes)));
    let size = |shorter_side, height, width| Some(ImageReading { height, width, channels: 3, shorter_side });
    let refused = open(&folder, None).err().unwrap().to_string();
    assert!(refused.contains("b/1.png: expected a picture of 9 x 5 pixels, found 8 x 12"), "{refused}");
    // Of 9 x 5 the shorter side is 5 already: columns 2 to 6, rows 1 to 3 are the middle.
    let data = open(&folder, size(Some(5), 3, 5)).unwrap();
    let train = all(&*data, Split::Train);
    assert_eq!(train[0].values[..5], [2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(train[0].values[15..30].chunks(5).map(|row| row[0]).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    // 6 x 6 to half: each pixel is a mean of those around 0.5, 2.5, 4.5, rounded as Pillow rounds.
    let half = open(&folder, size(Some(3), 3, 3)).unwrap();
    let row = all(&*half, Split::Test)[0].values[..3].to_vec();
    assert!(row.iter().zip([0.5, 2.5, 4.5]).all(|(a, b)| (a - b).abs() <= 0.75), "{row:?}");
    assert!(row.windows(2).all(|pair| pair[1] > pair[0]), "{row:?}");
    let gray = ImageReading { height: 5, width: 5, channels: 1, shorter_side: Some(5) };
    let data = open(&folder, Some(gray)).unwrap();
    // 0.2126 red + 0.7152 green + 0.0722 blue of (2, 0, 7) and of (6, 4, 7), rounded: 0.93 and 4.64.
    let values = &all(&*data, Split::Train)[0].values;
    assert_eq!((data.description().shape.clone(), values[0], values[24]), (vec![1, 5, 5], 1.0, 5.0));
}

#[test]
fn a_jpeg_is_what_pillow_decodes() {
    let Some(sheets) = shared("data/cifar10") else { return };
    let folder = scratch("jpeg");
    let bytes = fs::read(sheets.join("train_00.jpg")).unwrap();
    let files = ["train/a/1.jpg", "train/b/1.jpeg", "test/a/1.JPG"].map(|name| (name.to_string(), bytes.clone()));
    write(&folder, &files);
    let data = open(&folder, None).unwrap();
    let sample = all(&*data, Split::Test).remove(0);
    assert_eq!(data.description().shape, [3, 1600, 1600]);
    for (plane, expected) in sample.values.chunks(1600 * 1600).zip([125.3660, 123.0786, 113.7292]) {
        let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / plane.len() as f64;
        assert!((mean - expected).abs() < 0.02, "{mean}, Pillow {expected}");
    }
    // Decoders may round differently in the last bit, and colors once more.
    let found: Vec<f32> = (0..12).map(|i| sample.values[(i % 3) * 1600 * 1600 + 700 * 1600 + 800 + i]).collect();
    assert!(
        found
            .iter()
            .zip([133.0, 122.0, 99.0, 144.0, 119.0, 95.0, 144.0, 130.0, 90.0, 145.0, 131.0, 93.0])
            .all(|(a, b)| (a - b).abs() <= 3.0),
        "{found:?}"
    );
}

#[test]
fn what_is_no_picture_is_refused_by_its_name_and_never_panics() {
    let folder = scratch("bad_pictures");
    let small = png(3, 2, 1);
    let jpeg = encoded(&picture(16, 8, 90), ImageFormat::Jpeg);
    let gray = encoded(&GrayImage::from_pixel(3, 2, image::Luma([7])).into(), ImageFormat::Png);
    let base = |bad: &[u8]| {
        let names = ["train/a/1.png", "train/b/1.png", "test/a/1.png"];
        let files = names.map(|name| (name.to_string(), small.clone()));
        let _ = fs::remove_dir_all(folder.join("set"));
        write(&folder.join("set"), &files);
        fs::write(folder.join("set/test/a/1.png"), bad).unwrap();
        open(&folder.join("set"), None).map(|data| data.description().n_test).map_err(|e| e.to_string())
    };
    assert_eq!((base(&small), base(&gray)), (Ok(1), Ok(1)));
    for bad in [b"".to_vec(), b"GIF89a".to_vec(), small[..small.len() - 20].to_vec()] {
        let refused = base(&bad).unwrap_err();
        assert!(refused.contains("1.png: expected a PNG or JPEG picture") && !refused.contains('\n'), "{refused}");
    }
    // A picture that claims 100,000 x 100,000 pixels.
    let mut huge = small.clone();
    huge[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    assert!(base(&huge).is_err());
    let mut state = 11;
    for good in [&small, &jpeg] {
        for _ in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..1 + random(&mut state) % 4 {
                let at = random(&mut state) as usize % bytes.len();
                bytes[at] = random(&mut state) as u8;
            }
            bytes.truncate(1 + random(&mut state) as usize % (2 * good.len()));
            let _ = base(&bytes);
        }
    }
    let cases = [
        (
            "none",
            vec!["x/y/1.png"],
            "expected files train/CLASS/*.png or *.jpg or *.jpeg of at least 2 classes, found 0 classes",
        ),
        ("one", vec!["train/a/1.png", "test/a/1.png"], "of at least 2 classes, found 1 classes"),
        ("no_test", vec!["train/a/1.png", "train/b/1.png"], "expected files test/CLASS/*.png"),
        (
            "class",
            vec!["train/a/1.png", "train/b/1.png", "test/c/1.png"],
            "expected one of the 2 classes of the training part, found `c`",
        ),
        (
            "loose",
            vec!["train/a/1.png", "train/loose_one.png", "test/a/1.png"],
            "train/loose_one.png: expected a file in the folder of its class, found one that lies beside those folders",
        ),
    ];
    for (name, files, expected) in cases {
        let files: Vec<_> = files.into_iter().map(|file| (file.to_string(), small.clone())).collect();
        write(&folder.join(name), &files);
        fs::write(folder.join(format!("{name}.tar")), tar(&files, false)).unwrap();
        for path in [folder.join(name), folder.join(format!("{name}.tar"))] {
            let refused = open(&path, None).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(refused.contains(expected), "{}: {refused}", path.display());
        }
    }
    let good = tar(&small_set(), false);
    let path = folder.join("damaged.tar");
    for _ in 0..200 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(&mut state) % 4 {
            let at = random(&mut state) as usize % bytes.len();
            bytes[at] = random(&mut state) as u8;
        }
        bytes.truncate(1 + random(&mut state) as usize % (2 * good.len()));
        fs::write(&path, &bytes).unwrap();
        let _ = open(&path, None);
    }
}
