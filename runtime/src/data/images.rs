//! Pictures, PNG or JPEG: `split/class/*.png` as [`super::labelled`] finds them. [`ImageReading`] says their size; without,
//! it is that of the first one, which all others must then have.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageReader, Limits};

use super::labelled::{self, Decode, Kind, Labelled};
use super::reading::ImageReading;
use super::{Dataset, Description, Reading, Sample};
use crate::error::{Refusal, Result};

const KIND: Kind = Kind { endings: &["png", "jpg", "jpeg"], class_in_name: false };

/// Most memory that one picture may take while it is decoded.
const DECODE_BYTES: u64 = 1 << 30;

/// Opens a folder or tar and reads all pictures once.
pub(super) fn open(path: &Path, reading: Option<&Reading>) -> Result<Box<dyn Dataset>> {
    let size = match reading {
        Some(Reading::Image(size)) => size.clone(),
        _ => size_of_first(path)?,
    };
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
    Ok(Box::new(Labelled::open(path, &KIND, description, Box::new(decode))?))
}

fn size_of_first(path: &Path) -> Result<ImageReading> {
    let (at, bytes) = labelled::first(path, &KIND)?;
    let picture = decode(&bytes).map_err(|e| e.within(at))?;
    let channels = if picture.color().has_color() { 3 } else { 1 };
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(ImageReading { height, width, channels, shorter_side: None })
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

/// Decodes a picture whose sides and memory are bounded.
fn decode(bytes: &[u8]) -> Result<DynamicImage> {
    let refuse = |e: &dyn std::fmt::Display| {
        Refusal::new("", "a PNG or JPEG picture", e.to_string().replace('\n', " "), "copy or save it again")
    };
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| refuse(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(ImageReading::MOST_SIDE as u32);
    limits.max_image_height = Some(ImageReading::MOST_SIDE as u32);
    limits.max_alloc = Some(DECODE_BYTES);
    reader.limits(limits);
    reader.decode().map_err(|e| refuse(&e))
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
