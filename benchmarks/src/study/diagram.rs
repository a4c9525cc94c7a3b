//! A critical-difference diagram: methods at their mean ranks, bars over those that do not differ.

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 150.0;
const ROW: f64 = 24.0;
const TOP: f64 = 50.0;

/// The picture as SVG. `cliques` are places in the order of the ranks.
pub fn draw(title: &str, names: &[&str], ranks: &[f64], order: &[usize], cliques: &[(usize, usize)]) -> String {
    let n = order.len();
    let worst = n.max(2) as f64;
    let x = |rank: f64| MARGIN + (rank - 1.0) / (worst - 1.0) * (WIDTH - 2.0 * MARGIN);
    let half = n.div_ceil(2);
    let below = TOP + 14.0 + 8.0 * cliques.len() as f64;
    let height = below + ROW * half as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\">\n<title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"{}\" \
         y=\"16\" text-anchor=\"middle\" fill=\"#444\">{title}</text>\n",
        WIDTH / 2.0
    );
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64, width: f64| {
        svg.push_str(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#1c1c1e\" stroke-width=\"{width}\"/>\n"
        ));
    };
    line(x(1.0), TOP, x(worst), TOP, 1.5);
    for rank in 1..=n.max(2) {
        line(x(rank as f64), TOP - 5.0, x(rank as f64), TOP, 1.5);
    }
    for (i, &(from, to)) in cliques.iter().enumerate() {
        let y = TOP + 12.0 + 8.0 * i as f64;
        line(x(ranks[order[from]]) - 4.0, y, x(ranks[order[to]]) + 4.0, y, 4.0);
    }
    // The better half's names stand left, from the top down; the others' right, from the bottom up.
    let label = |place: usize| {
        let is_left = place < half;
        let row = if is_left { place } else { n - 1 - place };
        (is_left, below + 12.0 + ROW * row as f64)
    };
    for (place, &method) in order.iter().enumerate() {
        let (is_left, y) = label(place);
        let edge = if is_left { MARGIN - 8.0 } else { WIDTH - MARGIN + 8.0 };
        line(x(ranks[method]), TOP, x(ranks[method]), y, 1.0);
        line(x(ranks[method]), y, edge, y, 1.0);
    }
    for rank in 1..=n.max(2) {
        let at = x(rank as f64);
        svg.push_str(&format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{rank}</text>\n", TOP - 9.0));
    }
    for (place, &method) in order.iter().enumerate() {
        let (is_left, y) = label(place);
        let (edge, anchor) = if is_left { (MARGIN - 12.0, "end") } else { (WIDTH - MARGIN + 12.0, "start") };
        let (name, rank) = (names[method], ranks[method]);
        svg.push_str(&format!(
            "<text x=\"{edge:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name} ({rank:.2})</text>\n",
            y + 4.0
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_named_once_with_its_rank() {
        let names = ["alone", "kd", "ab"];
        let svg = draw("three", &names, &[3.0, 1.25, 1.75], &[1, 2, 0], &[(0, 1)]);
        for text in ["kd (1.25)", "ab (1.75)", "alone (3.00)"] {
            assert_eq!(svg.matches(text).count(), 1, "{text}");
        }
        assert_eq!(svg.matches("stroke-width=\"4\"").count(), 1);
        assert!(!svg.contains("NaN"));
    }
}
