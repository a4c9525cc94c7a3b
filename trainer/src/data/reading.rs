//! How files become samples, where a format leaves it open: the kinds of `[data] read`, one line each in [`READINGS`].

use kd_runtime::data::{
    ArrayReading, AudioReading, ColumnsReading, Dct, Frames, ImageReading, LAYOUTS, Reading, Slope, Spectrum,
};
use kd_runtime::{Refusal, Result};

use crate::options::{Kind, Options, Range, Spec};
use crate::recipe::Choice;

/// A row of the table of readings.
pub struct ReadingKind {
    /// Its name in a recipe.
    pub name: &'static str,
    /// What it does, on one line.
    pub about: &'static str,
    /// The kind of [`Reading`] that it makes.
    pub kind: &'static str,
    /// Its options, without `kind`.
    pub options: &'static [Spec],
    build: fn(&Options) -> Reading,
}

/// Every reading that a recipe can name.
#[rustfmt::skip]
pub static READINGS: &[ReadingKind] = &[
    ReadingKind { name: "array", about: "`npz`: what the dimensions of a sample mean", kind: "array", options: ARRAY, build: array },
    ReadingKind { name: "columns", about: "`csv`: which columns are read", kind: "columns", options: COLUMNS, build: columns },
    ReadingKind { name: "image", about: "`images`: size and colors", kind: "image", options: IMAGE, build: image },
    ReadingKind { name: "log_mel", about: "`wav`: energies of mel bands", kind: "audio", options: LOG_MEL, build: log_mel },
    ReadingKind { name: "mfcc", about: "`wav`: mel-frequency cepstral coefficients; left as it is, MLPerf Tiny's front end for keywords", kind: "audio", options: MFCC, build: mfcc },
];

const fn count(name: &'static str, about: &'static str, default: usize, least: usize, most: usize) -> Spec {
    Spec { name, about, kind: Kind::Count { default, least, most } }
}

const fn number(name: &'static str, about: &'static str, default: f64, range: Range) -> Spec {
    Spec { name, about, kind: Kind::Number { default, range } }
}

const fn choice(name: &'static str, about: &'static str, known: &'static [&'static str]) -> Spec {
    Spec { name, about, kind: Kind::Choice { default: known[0], known } }
}

static ARRAY: &[Spec] = &[Spec {
    name: "layout",
    about: "letters of the dimensions as they are stored: channels, height, width, time, features",
    kind: Kind::Choice { default: "CT", known: &LAYOUTS },
}];

static COLUMNS: &[Spec] = &[
    Spec { name: "label", about: "name of the column with the class", kind: Kind::Text { default: "label" } },
    Spec {
        name: "features",
        about: "names of the columns that make a sample, in order; none: all but the label",
        kind: Kind::Texts,
    },
];

const MOST_SIDE: usize = 1 << 14;

static IMAGE: &[Spec] = &[
    count("height", "of a sample, in pixels", 224, 1, MOST_SIDE),
    count("width", "of a sample, in pixels", 224, 1, MOST_SIDE),
    Spec {
        name: "channels",
        about: "`rgb`, or `gray`: 0.2126 red + 0.7152 green + 0.0722 blue; what is transparent is as it would be without",
        kind: Kind::Choice { default: "rgb", known: &["rgb", "gray"] },
    },
    count(
        "shorter_side",
        "pixels that the shorter side is brought to before height and width are cut from the middle; 0: every picture has that size",
        0,
        0,
        MOST_SIDE,
    ),
];

const MOST_SAMPLES: usize = 1 << 22;
const SAMPLE_RATE: Spec = count("sample_rate_hz", "of every recording; none is resampled", 16_000, 1, 1 << 20);
const CLIP: Spec = count(
    "clip_samples",
    "length that recordings are cut to, or filled up to with silence at their end",
    16_000,
    1,
    MOST_SAMPLES,
);
const PEAK: Spec = Spec {
    name: "peak_normalized",
    about: "whether a recording is divided by its largest value first",
    kind: Kind::Flag { default: true },
};
const WINDOW: Spec = count("window_samples", "length of a frame (a periodic Hann window)", 480, 1, MOST_SAMPLES);
const HOP: Spec = count("hop_samples", "from frame to frame", 320, 1, MOST_SAMPLES);
const FFT: Spec =
    count("fft_samples", "length of the Fourier transform: a power of two, not below the window", 512, 1, 1 << 16);
const SPECTRUM: Spec = choice("spectrum", "what is summed in bands", &["magnitude", "power"]);
const MELS: Spec = count("mels", "bands", 40, 1, 1024);
const MIN_HZ: Spec = number("min_hz", "where the lowest band begins", 20.0, Range::NotNegative);
const MAX_HZ: Spec = number("max_hz", "where the highest band ends", 4000.0, Range::Positive);
const SLOPE: Spec = choice(
    "slope",
    "the scale on which the sides of a band are straight: `mel` as TensorFlow's, `hz` as librosa's with htk and without norm",
    &["mel", "hz"],
);
const LOG_OFFSET: Spec = number("log_offset", "added before the natural logarithm", 1e-6, Range::Positive);
const FRAMES: Spec = choice(
    "frames",
    "where frames lie: `rows` of a picture [1, frames, features], or `steps` of a series",
    &["rows", "steps"],
);

static LOG_MEL: &[Spec] =
    &[SAMPLE_RATE, CLIP, PEAK, WINDOW, HOP, FFT, SPECTRUM, MELS, MIN_HZ, MAX_HZ, SLOPE, LOG_OFFSET, FRAMES];

static MFCC: &[Spec] = &[
    SAMPLE_RATE,
    CLIP,
    PEAK,
    WINDOW,
    HOP,
    FFT,
    SPECTRUM,
    MELS,
    MIN_HZ,
    MAX_HZ,
    SLOPE,
    LOG_OFFSET,
    count("coefficients", "that are kept, from the first on", 10, 1, 1024),
    choice(
        "dct",
        "scale of the cosine transform: `htk` has sqrt(2/n) throughout, `orthonormal` sqrt(1/n) at first",
        &["htk", "orthonormal"],
    ),
    FRAMES,
];

/// What a recipe says of reading. Refuses, naming the key, what its options do not tell by themselves.
pub fn build(choice: &Choice) -> Result<Reading> {
    let kind = READINGS.iter().find(|kind| kind.name == choice.name).expect("a checked choice names a row");
    let reading = (kind.build)(&choice.options);
    reading.check().map_err(|e| {
        let key = e.at.rsplit('.').next().unwrap_or_default().to_string();
        Refusal { at: format!("data.read.{key}"), action: "correct the recipe".into(), ..e }
    })?;
    Ok(reading)
}

fn array(options: &Options) -> Reading {
    Reading::Array(ArrayReading { layout: options.text("layout").into() })
}

fn columns(options: &Options) -> Reading {
    Reading::Columns(ColumnsReading {
        label: options.text("label").into(),
        features: options.texts("features").to_vec(),
    })
}

fn image(options: &Options) -> Reading {
    let side = options.count("shorter_side");
    Reading::Image(ImageReading {
        height: options.count("height"),
        width: options.count("width"),
        channels: if options.text("channels") == "gray" { 1 } else { 3 },
        shorter_side: (side > 0).then_some(side),
    })
}

fn log_mel(options: &Options) -> Reading {
    Reading::Audio(audio(options, 0, Dct::Orthonormal))
}

fn mfcc(options: &Options) -> Reading {
    let dct = if options.text("dct") == "htk" { Dct::Htk } else { Dct::Orthonormal };
    Reading::Audio(audio(options, options.count("coefficients"), dct))
}

fn audio(options: &Options, coefficients: usize, dct: Dct) -> AudioReading {
    AudioReading {
        sample_rate_hz: options.count("sample_rate_hz"),
        clip_samples: options.count("clip_samples"),
        peak_normalized: options.flag("peak_normalized"),
        window_samples: options.count("window_samples"),
        hop_samples: options.count("hop_samples"),
        fft_samples: options.count("fft_samples"),
        spectrum: if options.text("spectrum") == "power" { Spectrum::Power } else { Spectrum::Magnitude },
        mels: options.count("mels"),
        min_hz: options.number("min_hz"),
        max_hz: options.number("max_hz"),
        slope: if options.text("slope") == "hz" { Slope::Hz } else { Slope::Mel },
        log_offset: options.number("log_offset"),
        coefficients,
        dct,
        frames: if options.text("frames") == "steps" { Frames::Steps } else { Frames::Rows },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, settings: &[(&'static str, crate::options::Setting)]) -> Result<Reading> {
        let kind = READINGS.iter().find(|kind| kind.name == name).unwrap();
        let defaults = Options::defaults(kind.options);
        let options = settings.iter().fold(defaults, |options, (key, value)| options.with(key, value.clone()));
        build(&Choice { name: kind.name, options })
    }

    #[test]
    fn mfcc_as_it_is_is_the_front_end_of_mlperf_tiny() {
        assert_eq!(made("mfcc", &[]), Ok(Reading::Audio(AudioReading::mlperf_tiny())));
    }

    #[test]
    fn every_reading_is_good_as_it_is_and_refused_by_its_key() {
        use crate::options::Setting::{Count, Number};
        for kind in READINGS {
            assert_eq!(made(kind.name, &[]).map(|reading| reading.kind()), Ok(kind.kind), "{}", kind.name);
        }
        #[rustfmt::skip]
        let cases = [
            ("mfcc",    vec![("fft_samples", Count(500))],     "data.read.fft_samples: expected a power of two, found 500; correct the recipe"),
            ("mfcc",    vec![("fft_samples", Count(256))],     "data.read.fft_samples: expected 480 to 65536, found 256"),
            ("mfcc",    vec![("coefficients", Count(41))],     "data.read.coefficients: expected 0 to 40, found 41"),
            ("log_mel", vec![("max_hz", Number(9000.0))],      "data.read.max_hz: expected at most 8000"),
            ("log_mel", vec![("min_hz", Number(4000.0))],      "data.read.min_hz: expected 0 to below max_hz"),
            ("image",   vec![("shorter_side", Count(223))],    "data.read.shorter_side: expected at least 224"),
        ];
        for (name, settings, expected) in cases {
            let refused = made(name, &settings).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(refused.contains(expected), "{name}: {refused}");
        }
    }
}
