//! Pictures, PNG or JPEG: `split/class/*.png` as [`super::labelled`] finds them. [`ImageReading`] says their size
//! and colors; without, the size is that of the first one, which all others must then have, and gray is read where no
//! picture of the training part has colors.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, ImageResult, Limits};

use super::labelled::{Decode, Kind, Labelled, Place};
use super::reading::ImageReading;
use super::{Dataset, Description, Reading, Sample};
use crate::error::{Refusal, Result};

const KIND: Kind = Kind { endings: &["png", "jpg", "jpeg"], class_in_name: false };

/// Most memory that one picture may take while it is decoded.
const DECODE_BYTES: u64 = 1 << 30;

/// Opens a folder or tar and reads all pictures once.
pub(super) fn open(path: &Path, reading: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let (mut size, is_given) = match reading {
        Some(Reading::Image(size)) => (Some(size.clone()), true),
        _ => (None, false),
    };
    let place = Place::open(path, &KIND, |bytes| {
        if !is_given {
            let ((width, height), colored) = header(bytes)?;
            let (height, width) = (height as usize, width as usize);
            let first = size.get_or_insert(ImageReading { height, width, channels: 1, shorter_side: None });
            if colored {
                first.channels = 3;
            }
        }
        Ok(())
    })?;
    let none =
        || Refusal::new(path.display(), "pictures", "none", "name a folder with a folder of pictures for each class");
    let size = size.ok_or_else(none)?;
    let description = Description {
        shape: vec![size.channels, size.height, size.width],
        layout: "CHW".into(),
        classes: Vec::new(),
        raw_max: Some(255.0),
        n_train: 0,
        n_test: 0,
        sha256: String::new(),
        reading: Some(Reading::Image(size.clone())),
    };
    let decode = move || -> Box<dyn Decode> { Box::new(Pictures(size.clone())) };
    Ok(Box::new(Labelled::open(place, description, Box::new(decode))?))
}

struct Pictures(ImageReading);

impl Decode for Pictures {
    fn decode(&mut self, bytes: &[u8], sample: &mut Sample) -> Result<()> {
        let ImageReading { height, width, channels, shorter_side } = self.0;
        let mut picture = decode(bytes)?;
        if let Some(side) = shorter_side {
            picture = resize(&picture, side)?;
            let (left, top) = ((picture.width() as usize - width) / 2, (picture.height() as usize - height) / 2);
            picture = picture.crop_imm(left as u32, top as u32, width as u32, height as u32);
        }
        let found = (picture.width() as usize, picture.height() as usize);
        if found != (width, height) {
            let action = "bring all to one size, or say `shorter_side`";
            let found = format!("{} x {}", found.0, found.1);
            return Err(Refusal::new("", format!("a picture of {width} x {height} pixels"), found, action));
        }
        sample.values.clear();
        if channels == 1 {
            sample.values.extend(picture.into_luma8().as_raw().iter().map(|&value| f32::from(value)));
        } else {
            let pixels = picture.into_rgb8();
            sample.values.extend((0..3).flat_map(|c| pixels.as_raw().iter().skip(c).step_by(3)).map(|&v| f32::from(v)));
        }
        Ok(())
    }
}

/// A reader of a picture whose sides and memory are bounded.
fn reader(bytes: &[u8]) -> ImageResult<ImageReader<Cursor<&[u8]>>> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(ImageReading::MOST_SIDE as u32);
    limits.max_image_height = Some(ImageReading::MOST_SIDE as u32);
    limits.max_alloc = Some(DECODE_BYTES);
    reader.limits(limits);
    Ok(reader)
}

fn refuse(e: ImageError) -> Refusal {
    Refusal::new("", "a PNG or JPEG picture", e.to_string().replace('\n', " "), "copy or save it again")
}

/// Width and height, and whether a picture has colors; no pixel is decoded.
fn header(bytes: &[u8]) -> Result<((u32, u32), bool)> {
    let decoder = reader(bytes).and_then(ImageReader::into_decoder).map_err(refuse)?;
    Ok((decoder.dimensions(), decoder.color_type().has_color()))
}

fn decode(bytes: &[u8]) -> Result<DynamicImage> {
    reader(bytes).and_then(ImageReader::decode).map_err(refuse)
}

/// Brings the shorter side to `side` pixels; the other one follows, rounded.
fn resize(picture: &DynamicImage, side: usize) -> Result<DynamicImage> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let shorter = width.min(height).max(1);
    if shorter == side {
        return Ok(picture.clone());
    }
    let scaled = |n: usize| ((n * side) as f64 / shorter as f64).round() as usize;
    let (width, height) = (scaled(width), scaled(height));
    if width.max(height) > ImageReading::MOST_SIDE {
        let expected = format!("a picture that gets at most {} pixels wide and high", ImageReading::MOST_SIDE);
        return Err(Refusal::new("", expected, format!("{width} x {height}"), "take it out"));
    }
    Ok(DynamicImage::ImageRgba8(imageops::resize(
        &picture.to_rgba8(),
        width as u32,
        height as u32,
        FilterType::Triangle,
    )))
}
