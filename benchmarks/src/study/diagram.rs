//! A critical-difference diagram: methods at their mean ranks, bars over those that do not differ.

use kd_trainer::run::plot::svg;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: i32 = 720;
const MARGIN: i32 = 150;
const ROW: i32 = 24;
const TOP: i32 = 50;
const INK: RGBColor = RGBColor(0x1c, 0x1c, 0x1e);

/// The picture as SVG. `cliques` are places in the order of the ranks.
pub fn draw(title: &str, names: &[&str], ranks: &[f64], order: &[usize], cliques: &[(usize, usize)]) -> String {
    let n = order.len();
    let worst = n.max(2);
    let x = |rank: f64| MARGIN + ((rank - 1.0) / (worst as f64 - 1.0) * f64::from(WIDTH - 2 * MARGIN)).round() as i32;
    let half = n.div_ceil(2);
    let below = TOP + 14 + 8 * cliques.len() as i32;
    let height = below + ROW * half as i32 + 24;
    svg((WIDTH as u32, height as u32), |area| {
        area.fill(&WHITE)?;
        let line = |points: &[(i32, i32)], width| area.draw(&PathElement::new(points, INK.stroke_width(width)));
        let text = |text: &str, at, side, height| {
            area.draw_text(
                text,
                &("system-ui, sans-serif", 16, &INK).into_text_style(area).pos(Pos::new(side, height)),
                at,
            )
        };
        text(title, (WIDTH / 2, 6), HPos::Center, VPos::Top)?;
        line(&[(x(1.0), TOP), (x(worst as f64), TOP)], 2)?;
        for rank in 1..=worst {
            let at = x(rank as f64);
            line(&[(at, TOP - 5), (at, TOP)], 2)?;
            text(&rank.to_string(), (at, TOP - 6), HPos::Center, VPos::Bottom)?;
        }
        for (i, &(from, to)) in cliques.iter().enumerate() {
            let y = TOP + 12 + 8 * i as i32;
            line(&[(x(ranks[order[from]]) - 4, y), (x(ranks[order[to]]) + 4, y)], 4)?;
        }
        // The better half's names stand left, from the top down; the others' right, from the bottom up.
        for (place, &method) in order.iter().enumerate() {
            let is_left = place < half;
            let row = if is_left { place } else { n - 1 - place };
            let y = below + 12 + ROW * row as i32;
            let (edge, name_at, side) = if is_left {
                (MARGIN - 8, MARGIN - 12, HPos::Right)
            } else {
                (WIDTH - MARGIN + 8, WIDTH - MARGIN + 12, HPos::Left)
            };
            let at = x(ranks[method]);
            line(&[(at, TOP), (at, y), (edge, y)], 1)?;
            text(&format!("{} ({:.2})", names[method], ranks[method]), (name_at, y), side, VPos::Center)?;
        }
        Ok(())
    })
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
