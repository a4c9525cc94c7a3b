//! Curves as inline SVG: told apart by color and by dash, readable in light and dark.

use std::fmt::Write;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// A curve.
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Points with ascending x; y must be finite.
    pub points: Vec<(f64, f64)>,
}

/// A color of pictures: the SVG has that of light pages, and [`style`] puts the page's variable in its place.
struct Ink {
    variable: &'static str,
    light: RGBColor,
    dark: &'static str,
    dashes: &'static str,
}

const GRID: Ink = Ink { variable: "line", light: RGBColor(0xd8, 0xd8, 0xdc), dark: "#3a3b40", dashes: "none" };
/// Looks of curves that differ. More curves begin again.
#[rustfmt::skip]
const LOOKS: [Ink; 6] = [
    Ink { variable: "c0", light: RGBColor(0x0b, 0x62, 0xc4), dark: "#6cb2ff", dashes: "none" },
    Ink { variable: "c1", light: RGBColor(0xb4, 0x48, 0x0a), dark: "#ff9d5c", dashes: "28 12" },
    Ink { variable: "c2", light: RGBColor(0x21, 0x7a, 0x3c), dark: "#6fd38c", dashes: "8 12" },
    Ink { variable: "c3", light: RGBColor(0x8a, 0x2b, 0xa8), dark: "#d592ee", dashes: "36 12 8 12" },
    Ink { variable: "c4", light: RGBColor(0x8c, 0x6d, 0x00), dark: "#e3c34b", dashes: "48 16" },
    Ink { variable: "c5", light: RGBColor(0xa3, 0x19, 0x4f), dark: "#ff86ac", dashes: "16 8" },
];

/// Pictures have whole coordinates: they are drawn four times as large as they are shown.
const SCALE: u32 = 4;
const SIZE: (u32, u32) = (400 * SCALE, 240 * SCALE);
const SAMPLE: (u32, u32) = (32 * SCALE, 8 * SCALE);
const STROKE: u32 = 7;

/// An interval of numbers and where its ticks are. The crate's own has ticks between epochs and may name five decimals only.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Around all values, ending at ticks of 1, 2 or 5 times a power of ten, about `n` of them, `least` apart, and no nearer
    /// than floats can tell.
    fn around(values: impl Iterator<Item = f64>, n: f64, least: f64) -> Self {
        let values = values.map(|x| x.clamp(-1e300, 1e300));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let largest = low.abs().max(high.abs());
        let half = (0.1 * largest).max(0.5);
        let (low, high) = if low < high { (low, high) } else { (low - half, low + half) };
        let raw = ((high - low) / n).max(least).max(1e-12 * largest).max(1e-300);
        let power = 10_f64.powf(raw.log10().floor());
        let step = power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= raw * 0.999).unwrap_or(10.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, x: &f64, (from, to): (i32, i32)) -> i32 {
        let share = ((x - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        let n = ((self.high - self.low) / self.step).round() as usize;
        (0..=n).map(|i| self.low + i as f64 * self.step).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    /// As many digits as tell ticks apart; large numbers by their power of ten.
    fn format_ext(&self, x: &f64) -> String {
        let x = if x.abs() < self.step * 1e-6 { 0.0 } else { *x };
        let place = self.step.log10().floor();
        if place >= 4.0 {
            let digits = (x.abs().log10().floor() - place).clamp(0.0, 9.0) as usize;
            return format!("{x:.digits$e}");
        }
        let decimals = (-place).clamp(0.0, 9.0) as usize;
        format!("{x:.decimals$}")
    }
}

/// The style sheet of pictures: `--line`, `--c0`, `--c1`, … and what has their colors. Text is `--soft`.
pub fn style() -> String {
    let (mut light, mut dark, mut rules) = (String::new(), String::new(), String::new());
    for ink in std::iter::once(&GRID).chain(&LOOKS) {
        let Ink { variable, light: RGBColor(r, g, b), dark: in_the_dark, dashes } = ink;
        let hex = format!("#{r:02X}{g:02X}{b:02X}");
        let _ = write!(light, " --{variable}: {hex};");
        let _ = write!(dark, " --{variable}: {in_the_dark};");
        let _ = writeln!(rules, "[stroke=\"{hex}\"] {{ stroke: var(--{variable}); stroke-dasharray: {dashes}; }}");
        let _ = writeln!(rules, "[fill=\"{hex}\"] {{ fill: var(--{variable}); }}");
    }
    format!(
        ":root {{{light} }}\n@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}\n{rules}\
         svg text {{ font-family: inherit; fill: var(--soft); }}\n"
    )
}

/// Whether a drawing is whole.
pub type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// What is drawn on an area of this size, as an element `svg`.
pub fn svg(size: (u32, u32), draw: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Drawn) -> String {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&area).and_then(|()| area.present()).expect("text takes whatever is drawn");
    drop(area);
    text
}

/// A picture of curves over `x_name`, whose ticks are at least `least` apart; `about` is what a screen reader says. Empty
/// without a point.
pub fn lines(about: &str, (x_name, least): (&str, f64), series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    if points().next().is_none() {
        return String::new();
    }
    let x_axis = Axis::around(points().map(|point| point.0), 6.0, least);
    let y_axis = Axis::around(points().map(|point| point.1), 5.0, 0.0);
    let svg = svg(SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_top(10 * SCALE)
            .margin_right(10 * SCALE)
            .x_label_area_size(34 * SCALE)
            .y_label_area_size(48 * SCALE)
            .build_cartesian_2d(x_axis, y_axis)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.light.stroke_width(SCALE))
            .axis_style(GRID.light.stroke_width(SCALE))
            .set_all_tick_mark_size(3 * SCALE)
            .label_style(("sans-serif", 16 * SCALE))
            .x_desc(x_name)
            .draw()?;
        for (series, look) in series.iter().zip(LOOKS.iter().cycle()) {
            // A curve of one point would not be seen.
            let dot = if series.points.len() == 1 { 3 * SCALE } else { 0 };
            let curve = LineSeries::new(series.points.iter().copied(), look.light.filled().stroke_width(STROKE));
            chart.draw_series(curve.point_size(dot))?;
        }
        Ok(())
    });
    format!("<div role=\"img\" aria-label=\"{}\">\n{svg}</div>\n", escape(about))
}

/// A picture of shares from 0 to 1 as bars below each other, each with its name and its number; `about` is what a screen reader
/// says. Empty without a bar.
pub fn bars(about: &str, bars: &[(String, f64)]) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let unit = |n: u32| (n * SCALE) as i32;
    let (left, right, high) = (unit(170), unit(330), 24);
    let font = ("sans-serif", 16 * SCALE);
    let svg = svg((SIZE.0, bars.len() as u32 * high * SCALE), |area| {
        for (i, (name, share)) in (0..).zip(bars) {
            let top = unit(i * high);
            let end = left + (share.clamp(0.0, 1.0) * f64::from(right - left)).round() as i32;
            area.draw(&Rectangle::new([(left, top + unit(3)), (right, top + unit(high - 3))], GRID.light.filled()))?;
            area.draw(&Rectangle::new([(left, top + unit(3)), (end, top + unit(high - 3))], LOOKS[0].light.filled()))?;
            area.draw(&Text::new(name.clone(), (0, top + unit(4)), font))?;
            area.draw(&Text::new(format!("{:.2} %", 100.0 * share), (right + unit(6), top + unit(4)), font))?;
        }
        Ok(())
    });
    format!("<div role=\"img\" aria-label=\"{}\">\n{svg}</div>\n", escape(about))
}

/// The names of curves beside a piece of each.
pub fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">\n");
    for (series, look) in series.iter().zip(LOOKS.iter().cycle()) {
        let (width, middle) = (SAMPLE.0 as i32, SAMPLE.1 as i32 / 2);
        let piece = PathElement::new([(0, middle), (width, middle)], look.light.stroke_width(STROKE));
        let sample = svg(SAMPLE, |area| area.draw(&piece));
        let _ = writeln!(html, "<li><span aria-hidden=\"true\">{sample}</span> {}</li>", escape(&series.name));
    }
    html.push_str("</ul>\n");
    html
}

/// Text as HTML shows it, in elements and in quoted attributes; control characters as `\u{..}`.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in kd_runtime::error::Shown(text).to_string().chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_around_all_values() {
        #[rustfmt::skip]
        let cases: &[(&[f64], f64, f64, f64)] = &[
            (&[0.03, 0.97],    0.0,  1.0,   0.2),
            (&[1.0, 200.0],    0.0,  200.0, 50.0),
            (&[0.912, 0.934],  0.91, 0.935, 0.005),
            (&[2.0],           1.4,  2.6,   0.2),
            (&[-3.0, 4.0],    -4.0,  4.0,   2.0),
        ];
        for (values, low, high, step) in cases {
            let axis = Axis::around(values.iter().copied(), 5.0, 0.0);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(
                near(axis.low, *low) && near(axis.high, *high) && near(axis.step, *step),
                "{values:?}: {} {} {}",
                axis.low,
                axis.high,
                axis.step
            );
        }
    }

    #[test]
    fn labels_tell_ticks_apart() {
        #[rustfmt::skip]
        let cases: &[(f64, f64, &[&str])] = &[
            (0.0,    0.5,    &["0.0", "0.5"]),
            (0.915,  0.005,  &["0.915", "0.920"]),
            (0.0,    1000.0, &["0", "1000"]),
            (0.0,    5e4,    &["0e0", "5e4"]),
            (1.01e6, 1e4,    &["1.01e6", "1.02e6"]),
        ];
        for &(low, step, expected) in cases {
            let axis = Axis { low, high: low + step, step };
            let labels: Vec<String> = [low, low + step].iter().map(|x| axis.format_ext(x)).collect();
            assert_eq!(labels, expected);
        }
    }

    #[test]
    fn every_coordinate_lies_in_the_picture() {
        let curve = |points: &[(f64, f64)]| Series { name: "<a & b>".into(), points: points.to_vec() };
        let series = [curve(&[(1.0, 2.3), (2.0, 0.1), (3.0, 1e-9)]), curve(&[(1.0, 1e6)])];
        let svg = lines("loss \"x\"", ("epoch", 1.0), &series);
        assert!(svg.contains("aria-label=\"loss &quot;x&quot;\"") && svg.contains("<circle"));
        let curves: Vec<&str> = svg.split(" points=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
        assert!(curves.iter().any(|points| points.split_whitespace().count() == 3));
        for point in curves.iter().flat_map(|points| points.split_whitespace()) {
            let (x, y) = point.split_once(',').unwrap_or_default();
            let inside = |text: &str, size: u32| text.parse().is_ok_and(|at: u32| at <= size);
            assert!(inside(x, SIZE.0) && inside(y, SIZE.1), "{point}");
        }
        assert!(legend(&series).contains("&lt;a &amp; b&gt;"));
        assert_eq!(lines("nothing", ("epoch", 1.0), &[curve(&[])]), "");
    }

    #[test]
    fn bars_are_as_long_as_their_shares() {
        let svg = bars("right", &[("exit-1".into(), 0.5), ("<b>".into(), 1.0)]);
        let widths: Vec<u32> =
            svg.split(" width=\"").skip(1).filter_map(|s| s.split('"').next()?.parse().ok()).collect();
        // The picture's width, then of each bar its room and its share.
        assert_eq!((widths.len(), widths[1], widths[2] * 2, widths[3], widths[4]), (5, 640, 640, 640, 640), "{svg}");
        assert!(svg.contains("50.00 %") && svg.contains("exit-1") && !svg.contains("<b>"), "{svg}");
        assert_eq!(bars("nothing", &[]), "");
    }

    #[test]
    fn the_largest_and_smallest_numbers_are_drawn() {
        let extremes = [f64::MAX, -f64::MAX, 1e300, 1e20, 1e16 + 2.0, 1.0, 1.0 + f64::EPSILON, 5e-324, 0.0];
        for (a, b) in extremes.iter().flat_map(|&a| extremes.map(|b| (a, b))) {
            let curve = Series { name: String::new(), points: vec![(1.0, a), (2.0, b)] };
            let labels = lines("", ("epoch", 1.0), &[curve]).matches("<text").count();
            assert!((4..20).contains(&labels), "{a:e} and {b:e}: {labels} labels");
        }
    }

    #[test]
    fn every_color_of_a_picture_is_one_of_the_page() {
        let curves: Vec<Series> =
            (0..8).map(|i| Series { name: String::new(), points: vec![(f64::from(i), 1.0)] }).collect();
        let drawn = [lines("", ("epoch", 1.0), &curves), legend(&curves), bars("", &[("a".into(), 0.3)])];
        let (svg, style) = (drawn.concat(), style());
        for attribute in ["stroke", "fill"] {
            for value in svg.split(&format!(" {attribute}=\"")).skip(1).filter_map(|s| s.split('"').next()) {
                let is_text = attribute == "fill" && value == "#000000";
                assert!(value == "none" || is_text || style.contains(&format!("[{attribute}=\"{value}\"]")), "{value}");
            }
        }
    }
}
