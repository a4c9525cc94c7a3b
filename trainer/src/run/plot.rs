//! Curves as inline SVG: told apart by color and by dash, readable in light and dark (`report.rs` has the colors).

use std::fmt::Write;

/// A curve.
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Points with ascending x; y must be finite.
    pub points: Vec<(f64, f64)>,
}

/// Looks of curves that differ: classes `c0`, `c1`, … of the style sheet. More curves begin again.
pub const LOOKS: usize = 6;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// An interval of numbers and where its ticks are.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Around all values, ending at ticks of 1, 2 or 5 times a power of ten, about `n` of them, `least` apart.
    fn around(values: impl Iterator<Item = f64>, n: f64, least: f64) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let (low, high) = if low < high { (low, high) } else { (low - 0.5, low + 0.5) };
        let raw = ((high - low) / n).max(least);
        let power = 10_f64.powf(raw.log10().floor());
        let step = power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= raw * 0.999).unwrap_or(10.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step }
    }

    fn share(&self, x: f64) -> f64 {
        (x - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let n = ((self.high - self.low) / self.step).round() as usize;
        (0..=n).map(|i| self.low + i as f64 * self.step)
    }

    /// As many decimals as the step has.
    fn label(&self, x: f64) -> String {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{:.decimals$}", if x.abs() < self.step * 1e-6 { 0.0 } else { x })
    }
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
    let x = |value: f64| LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", escape(about));
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in y_axis.ticks() {
        let (at, label) = (y(tick), y_axis.label(tick));
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, at + 4.0);
    }
    for tick in x_axis.ticks() {
        let (at, label) = (x(tick), x_axis.label(tick));
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {bottom}v4\"/>");
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0);
    }
    let _ = writeln!(svg, "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{x_name}</text>", HEIGHT - 4.0);
    for (i, series) in series.iter().enumerate() {
        let class = i % LOOKS;
        let mut path = String::new();
        for (j, point) in series.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if j == 0 { 'M' } else { 'L' }, x(point.0), y(point.1));
        }
        let _ = writeln!(svg, "<path class=\"c{class}\" d=\"{path}\"/>");
        if let [(only_x, only_y)] = series.points[..] {
            let _ =
                writeln!(svg, "<circle class=\"c{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(only_x), y(only_y));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The names of curves beside a piece of each.
pub fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">\n");
    for (i, series) in series.iter().enumerate() {
        let class = i % LOOKS;
        let sample =
            format!("<svg viewBox=\"0 0 32 8\" aria-hidden=\"true\"><path class=\"c{class}\" d=\"M0 4H32\"/></svg>");
        let _ = writeln!(html, "<li>{sample} {}</li>", escape(&series.name));
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
    fn every_coordinate_lies_in_the_picture() {
        let curve = |points: &[(f64, f64)]| Series { name: "<a & b>".into(), points: points.to_vec() };
        let series = [curve(&[(1.0, 2.3), (2.0, 0.1), (3.0, 1e-9)]), curve(&[(1.0, 1e6)])];
        let svg = lines("loss \"x\"", ("epoch", 1.0), &series);
        assert!(svg.contains("aria-label=\"loss &quot;x&quot;\"") && svg.contains("<circle"));
        for path in svg.split("class=\"c").skip(1).filter_map(|s| s.split_once("d=\"M")).map(|(_, d)| d) {
            for point in path.split('"').next().unwrap_or_default().split('L') {
                let (x, y) = point.split_once(' ').unwrap_or_default();
                let (x, y): (f64, f64) = (x.parse().unwrap_or(-1.0), y.parse().unwrap_or(-1.0));
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
        assert!(legend(&series).contains("&lt;a &amp; b&gt;"));
        assert_eq!(lines("nothing", ("epoch", 1.0), &[curve(&[])]), "");
    }
}
